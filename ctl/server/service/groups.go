package service

import (
	"cmp"
	"slices"

	"udm/ctl/server/handover"
	"udm/dm"
)

// atOnce is how many devices are handed over together if they do not depend on each other:
// few enough that none of them waits long, enough that each message counts for several.
const atOnce = 8

// NBDClients are the holders whose clients can be handed over device by device.
const NBDClients dm.Holder = "nbd"

func (s *Service) together() int { return cmp.Or(s.atOnce, atOnce) }

// Groups divides the devices for a handover. Those of one group use each other, or a disk
// that one of them may write to; disks that all only read, such as the image of many clones,
// bind nobody. What programs have open as files is in the first group, since a mount goes
// over as a whole, and so are devices that do not serve I/O now. The others follow in groups
// of at most atOnce devices, unless more depend on each other.
func (s *Service) Groups() (first handover.Group, rest []handover.Group) {
	first = make(handover.Group)
	var next handover.Group
	all := s.state.Changing()
	for _, ds := range s.dependent() {
		if all || slices.ContainsFunc(ds, s.bound) {
			add(first, ds)
			continue
		}
		if next == nil || len(next)+len(ds) > s.together() {
			next = make(handover.Group)
			rest = append(rest, next)
		}
		add(next, ds)
	}
	return first, rest
}

func add(g handover.Group, ds []*dm.Device) {
	for _, d := range ds {
		g[d.Number().Minor] = true
	}
}

// bound reports whether a device must be handed over with the front ends.
func (s *Service) bound(d *dm.Device) bool {
	st := d.Status()
	if !st.Live || st.Suspended || st.InternallySuspended {
		return true
	}
	for who := range st.Holders {
		switch who {
		case dm.Tables, NBDClients:
		default:
			if !s.sockets.Holds(who) && !(s.kernel.Attaches(who) && s.kernel.ByUblk(st.Number.Minor)) {
				return true
			}
		}
	}
	return false
}

// dependent returns the devices, those together that depend on each other, in the order of
// their numbers.
func (s *Service) dependent() (sets [][]*dm.Device) {
	m := s.opener.(mover)
	ds := s.control.List()
	slices.SortFunc(ds, func(a, b *dm.Device) int { return int(a.Number().Minor) - int(b.Number().Minor) })
	f := make(forest)
	written := make(map[string]bool)
	for _, d := range ds {
		for _, n := range leaves(d) {
			if s.control.Written(n) {
				written[m.Base(n)] = true
			}
		}
	}
	for _, d := range ds {
		for _, n := range append(d.Deps(false), d.Deps(true)...) {
			if n.Major == dm.Major {
				f.join(d.Number(), n)
			} else if base := m.Base(n); written[base] {
				f.join(d.Number(), base)
			}
		}
	}
	at := make(map[any]int) // by the root of each tree
	for _, d := range ds {
		root := f.root(d.Number())
		i, there := at[root]
		if !there {
			i = len(sets)
			at[root], sets = i, append(sets, nil)
		}
		sets[i] = append(sets[i], d)
	}
	return sets
}

// forest has a tree for each set of things that belong together: each points to another one.
type forest map[any]any

func (f forest) root(x any) any {
	for f[x] != nil {
		if up := f[f[x]]; up != nil {
			f[x] = up
		}
		x = f[x]
	}
	return x
}

func (f forest) join(x, y any) {
	if x, y = f.root(x), f.root(y); x != y {
		f[x] = y
	}
}
