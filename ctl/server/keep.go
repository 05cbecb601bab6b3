package server

import (
	"fmt"
	"strings"

	"udm/dm"
)

// keeper is what the server knows about a device beside the device mapper.
type keeper struct {
	dev *dm.Device

	disk    bool    // guarded by Server.mu; a table was loaded once
	waiting *record // guarded by Server.mu; saved tables that could not be loaded yet
	reason  string  // guarded by Server.mu; why
}

// keeper returns the keeper of a device, a fresh one when the minor number has
// gone to another device.
func (s *Server) keeper(d *dm.Device) *keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeperLocked(d)
}

func (s *Server) keeperLocked(d *dm.Device) *keeper {
	k := s.keepers[d.Number().Minor]
	if k == nil || k.dev != d {
		k = &keeper{dev: d}
		s.keepers[d.Number().Minor] = k
	}
	return k
}

// sweep forgets devices that have gone by themselves: those that were marked for
// removal and then closed.
func (s *Server) sweep() {
	s.mu.Lock()
	var gone []*dm.Device
	for _, k := range s.keepers {
		if now, err := s.control.Number(k.dev.Number()); err != nil || now != k.dev {
			gone = append(gone, k.dev)
		}
	}
	s.mu.Unlock()
	for _, d := range gone {
		if err := s.save(d); err != nil {
			s.log.Warn("the saved state of a removed device stays", "reason", err)
		}
	}
}

// record describes a device for the store. Tables that still wait stand in for
// the ones that the device lacks.
func (s *Server) record(k *keeper) *record {
	st := k.dev.Status()
	r := &record{Minor: st.Number.Minor, Name: st.Name, UUID: st.UUID, Suspended: st.Suspended,
		DeferredRemove: st.DeferredRemove, Live: loaded(k.dev, false), Inactive: loaded(k.dev, true)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := k.waiting; w != nil {
		r.Suspended = r.Suspended || w.Suspended
		if r.Live == nil {
			r.Live = w.Live
		}
		if r.Inactive == nil {
			r.Inactive = w.Inactive
		}
	}
	return r
}

func loaded(d *dm.Device, inactive bool) *table {
	specs, mode, ok := d.Loaded(inactive)
	if !ok {
		return nil
	}
	t := &table{ReadOnly: !mode.Write}
	for _, sp := range specs {
		t.Text = append(t.Text, sp.String())
	}
	return t
}

// parse reads the text of a table and gives devices the names that last.
func (s *Server) parse(text string) ([]dm.Spec, error) {
	specs, err := dm.ParseTable(text)
	for i := range specs {
		specs[i].Params = s.lasting(specs[i].Params)
	}
	return specs, err
}

// lasting replaces the words of a target's parameters that name a device by one
// that still means it after a rename or a restart.
func (s *Server) lasting(params string) string {
	words := strings.Split(params, " ")
	for i, w := range words {
		if n, ok := s.mapped(w); ok {
			words[i] = n.String()
		} else if n, ok := parseNumber(w); ok {
			if name := s.opener.Name(n); name != "" {
				words[i] = name
			}
		}
	}
	return strings.Join(words, " ")
}

// mapped is the number of the mapped device that a word of a table names.
func (s *Server) mapped(w string) (dm.Number, bool) {
	var n dm.Number
	name, ok := strings.CutPrefix(w, "/dev/mapper/")
	if ok {
		d, err := s.control.Name(name)
		if err != nil {
			return n, false
		}
		// One without a table cannot be opened, and the errno tells a path
		// from a number.
		st := d.Status()
		return d.Number(), st.Live || st.Inactive
	}
	if rest, ok := strings.CutPrefix(w, "/dev/dm-"); ok {
		w = fmt.Sprintf("%d:%s", dm.Major, rest)
	}
	n, ok = parseNumber(w)
	return n, ok && n.Major == dm.Major
}

func parseNumber(w string) (n dm.Number, ok bool) {
	var rest string
	k, _ := fmt.Sscanf(w, "%d:%d%s", &n.Major, &n.Minor, &rest)
	return n, k == 2
}
