package multipath

import (
	"strconv"
	"strings"

	"udm/dm"
)

// Status is what dmsetup status says behind "multipath".
type Status struct {
	Unused  bool // no path has been used yet, or looked for in vain
	Current int  // the group that is used, or will be used next, from 1 on; 0: there is none
	Groups  []GroupStatus
}

// GroupStatus is what a status says of a group.
type GroupStatus struct {
	State byte     // A: active, E: enabled, D: disabled
	Words []string // of the selector
	Paths []PathStatus
}

// PathStatus is what a status says of a path.
type PathStatus struct {
	Device   string
	Failed   bool
	Failures uint32
	Load     []uint64 // what the selector says
}

func (s *Status) String() string {
	w := &words{}
	w.add("2 %s 0 0 %d %d", letter(s.Unused, "1", "0"), len(s.Groups), s.Current)
	for _, g := range s.Groups {
		w.add("%c %d", g.State, len(g.Words))
		for _, word := range g.Words {
			w.add("%s", word)
		}
		w.add("%d %d", len(g.Paths), g.load())
		for _, p := range g.Paths {
			w.add("%s %s %d", p.Device, letter(p.Failed, "F", "A"), p.Failures)
			for _, n := range p.Load {
				w.add("%d", n)
			}
		}
	}
	return w.String()
}

// Failed returns how many paths have failed, and how many there are.
func (s *Status) Failed() (failed, all int) {
	for _, g := range s.Groups {
		for _, p := range g.Paths {
			if all++; p.Failed {
				failed++
			}
		}
	}
	return failed, all
}

func letter(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// load is the number of words that the selector has for each path.
func (g *GroupStatus) load() int {
	if len(g.Paths) == 0 {
		return 0
	}
	return len(g.Paths[0].Load)
}

// Usage is empty: the target has no space of its own.
func (s *Status) Usage() []dm.Usage { return nil }

// ParseStatus parses a status.
func ParseStatus(status string) (*Status, error) {
	s, r := &Status{}, &reader{words: strings.Fields(status)}
	if r.number() != 2 {
		r.wrong = true
	}
	s.Unused = r.number() == 1
	r.number()
	r.number()
	n := r.count()
	s.Current = r.number()
	for range n {
		s.Groups = append(s.Groups, r.group())
	}
	if r.wrong || s.String() != status {
		return nil, dm.NotStatus("multipath", status)
	}
	return s, nil
}

// reader reads the words of a status. Behind the end it returns nothing, and is wrong.
type reader struct {
	words []string
	wrong bool
}

func (r *reader) next() string {
	if len(r.words) == 0 {
		r.wrong = true
		return ""
	}
	w := r.words[0]
	r.words = r.words[1:]
	return w
}

func (r *reader) number() int {
	n, err := strconv.Atoi(r.next())
	r.wrong = r.wrong || err != nil || n < 0
	return n
}

// count reads how many things follow, each of at least one word.
func (r *reader) count() int {
	n := r.number()
	if r.wrong || n > len(r.words) {
		r.wrong = true
		return 0
	}
	return n
}

func (r *reader) group() (g GroupStatus) {
	if w := r.next(); len(w) == 1 {
		g.State = w[0]
	}
	for range r.count() {
		g.Words = append(g.Words, r.next())
	}
	n, load := r.count(), r.count()
	for range n {
		g.Paths = append(g.Paths, r.path(load))
	}
	return g
}

func (r *reader) path(load int) PathStatus {
	p := PathStatus{Device: r.next(), Failed: r.next() == "F", Failures: uint32(r.number())}
	for range load {
		n, err := strconv.ParseUint(r.next(), 10, 64)
		r.wrong = r.wrong || err != nil
		p.Load = append(p.Load, n)
	}
	return p
}
