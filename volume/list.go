package volume

import (
	"fmt"
	"path/filepath"
	"strings"

	"udm/blk"
	"udm/dm"
	"udm/targets/snapshot"
	"udm/targets/thin"
)

// Object is an object in a list.
type Object struct {
	Name string `json:"name"`
	Description
}

// Description describes an object.
type Description struct {
	Kind  Kind   `json:"kind"`
	State string `json:"state"` // active, suspended, or a problem
	Bytes uint64 `json:"bytes"`
	Store string `json:"store,omitempty"` // file that keeps its changes
	Base  string `json:"base,omitempty"`  // what it is based on: a file or an object
	Pool  string `json:"pool,omitempty"`
	// ID is a volume's number in its pool.
	ID  *uint32 `json:"id,omitempty"`
	Own uint64  `json:"own"` // bytes that it uses alone
	// Shared is the bytes of its pool that it shares with other volumes.
	Shared uint64   `json:"shared,omitempty"`
	On     []string `json:"on,omitempty"` // objects that are based on it
	// Labels are what programs keep with it.
	Labels map[string]string `json:"labels,omitempty"`
	// Incoming is how many bytes of an incomplete stream it has: where to continue
	// sending.
	Incoming *uint64 `json:"incoming,omitempty"`
}

// Objects lists all objects in ascending order of names. Devices made below an object
// are part of it.
func (m *Manager) Objects() []Object {
	list := make([]Object, 0)
	for _, d := range m.control.List() {
		o, err := m.object(d.Name())
		switch {
		case err != nil:
			list = append(list, Object{d.Name(), Description{Kind: Disk, State: "no table"}})
		case m.whole(o) == nil:
			list = append(list, Object{o.name, m.describe(o)})
		}
	}
	return list
}

// Object describes one object. ENXIO: there is none.
func (m *Manager) Object(name string) (Object, error) {
	o, err := m.object(name)
	if err == nil {
		err = m.whole(o)
	}
	if err != nil {
		return Object{}, err
	}
	return Object{o.name, m.describe(o)}, nil
}

func (m *Manager) describe(o *object) Description {
	d := Description{Kind: o.kind, State: "active", Bytes: o.sectors * blk.SectorSize, On: m.standing(o), Labels: o.record.Labels}
	if o.dev.Status().Suspended {
		d.State = "suspended"
	}
	if in := o.record.Incoming; in != nil {
		d.State, d.Incoming = "incoming", new(uint64)
		if m.isReceiving(strings.TrimSuffix(o.name, incomingSuffix)) {
			d.State = Receiving
		}
		if in.At != nil {
			*d.Incoming = in.At.Offset
		}
	}
	switch o.kind {
	case Clone, Snapshot, Merging:
		m.describeStore(o, &d)
	case Hydrating:
		m.describeHydration(o, &d)
	case Volume:
		l := o.volume()
		d.Pool, d.ID, d.Base = mapped(l.Pool), &l.ID, l.Origin
		if p, err := m.control.Name(d.Pool); err == nil {
			d.Own, d.Shared, err = thin.Usage(p, l.ID)
			if err != nil {
				d.State = err.Error()
			}
		}
	}
	if o.record.Base != nil && o.kind != Hydrating {
		d.Base = o.record.Base.Path
	}
	for _, f := range o.record.Files {
		if st, err := m.files.Stat(f); err == nil && o.kind != Volume {
			d.Own += st.Allocated
		}
	}
	return d
}

func (m *Manager) describeStore(o *object, d *Description) {
	l := o.store()
	d.Store, d.Base = l.COW, l.Origin
	if name := mapped(l.Origin); name != "" {
		d.Base = strings.TrimSuffix(name, realSuffix)
	}
	lines := o.dev.Lines(dm.Info, false, dm.StatusNoflush)
	if len(lines) != 1 {
		return
	}
	if st, err := snapshot.ParseStatus(lines[0].Params); err == nil && st.State != "" {
		d.State = string(st.State)
	}
}

// Orphan is something that no object uses: a store without its device, or a volume of
// a pool without a device.
type Orphan struct {
	File  string `json:"file,omitempty"`
	Pool  string `json:"pool,omitempty"`
	ID    uint32 `json:"id,omitempty"`
	Bytes uint64 `json:"bytes,omitempty"`
	Base  string `json:"base,omitempty"` // image that a store belongs to
}

// String returns the file, or POOL:ID.
func (o Orphan) String() string {
	if o.Pool != "" {
		return fmt.Sprintf("%s:%d", o.Pool, o.ID)
	}
	return o.File
}

// Orphans lists what no object uses, in the directory of stores and in pools.
func (m *Manager) Orphans() ([]Orphan, error) {
	dir := filepath.Join(m.root, "stores")
	names, err := m.files.List(dir)
	if err != nil {
		return nil, err
	}
	used := m.filesInUse()
	list := make([]Orphan, 0)
	for _, name := range names {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, noteSuffix) || used[path] {
			continue
		}
		o := Orphan{File: path}
		if st, err := m.files.Stat(path); err == nil {
			o.Bytes = st.Allocated
		}
		if b, err := m.noted(path); err == nil && b != nil {
			o.Base = b.Path
		}
		list = append(list, o)
	}
	return append(list, m.orphanVolumes()...), nil
}

// filesInUse returns the files of all records, tables and incomplete operations.
func (m *Manager) filesInUse() map[string]bool {
	used := make(map[string]bool)
	for _, d := range m.control.List() {
		for _, f := range m.devices.Record(d.Name()).Files {
			used[f] = true
		}
		specs, _, _ := d.Loaded(false)
		lines, _ := m.control.ParseLines(specs)
		for _, l := range lines {
			for _, w := range l.Devices() {
				used[*w.Name] = true
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range m.operations {
		for _, s := range op.Add {
			if made, ok := s.(*makeFiles); ok {
				for _, f := range made.Files {
					used[f.Path], used[mark(f.Path, op)] = true, true
				}
			}
		}
		for _, s := range op.Then {
			if gone, ok := s.(*removeFiles); ok {
				for _, f := range gone.Paths {
					used[f] = true
				}
			}
		}
	}
	return used
}

func (m *Manager) orphanVolumes() (list []Orphan) {
	taken := make(map[string]map[uint32]bool)
	var pools []*dm.Device
	for _, d := range m.control.List() {
		o, err := m.object(d.Name())
		switch {
		case err != nil:
		case o.kind == Pool:
			pools = append(pools, d)
		case o.kind == Volume:
			pool := mapped(o.volume().Pool)
			if taken[pool] == nil {
				taken[pool] = make(map[uint32]bool)
			}
			taken[pool][o.volume().ID] = true
		}
	}
	for _, p := range pools {
		ids, err := thin.Volumes(p)
		for _, id := range ids {
			if err == nil && !taken[p.Name()][id] {
				own, _, _ := thin.Usage(p, id)
				list = append(list, Orphan{Pool: p.Name(), ID: id, Bytes: own})
			}
		}
	}
	return list
}
