package lvm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Assembled is a volume group assembled from the available disks.
type Assembled struct {
	Name   string
	ID     UUID
	Seqno  uint64
	*Group // nil if Err

	// Err says why the group cannot be used: its text is not supported, or it is
	// ambiguous which of its texts or disks is right.
	Err error
	// Problems are warnings for its users; the group can be used all the same.
	Problems []string
	// Disks are the disks of the group, by the names in its text. A missing disk has
	// no entry.
	Disks map[string]*Found
	// Strangers are disks with an older text of the group that the newest one does not
	// have any more: taking them out was interrupted.
	Strangers []*Found
}

// copyOf is one copy of a group's text.
type copyOf struct {
	header
	disk *Found
	area *Area
}

func (c copyOf) String() string {
	return fmt.Sprintf("%s: metadata at byte %d", c.disk.Name, c.area.Offset+c.area.Text.Offset)
}

// assemble finds the groups of disks.
func assemble(disks []*Found) []*Assembled {
	byID := map[UUID][]copyOf{}
	for _, d := range disks {
		for _, a := range d.Areas {
			if a.Text == nil {
				continue
			}
			h, err := readGroupHeader(a.Text.Section)
			if err != nil {
				a.Err = &DiskError{d.Name, a.Offset + a.Text.Offset, "metadata", err}
				continue
			}
			byID[h.id] = append(byID[h.id], copyOf{h, d, a})
		}
	}
	byPV := map[UUID][]*Found{}
	for _, d := range disks {
		if d.Label != nil {
			byPV[d.Label.ID] = append(byPV[d.Label.ID], d)
		}
	}
	var groups []*Assembled
	for _, copies := range byID {
		groups = append(groups, newAssembled(copies, byPV))
	}
	slices.SortFunc(groups, func(a, b *Assembled) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(string(a.ID), string(b.ID)))
	})
	tellSameNames(groups)
	tellTwoGroups(groups)
	return groups
}

// newest returns a copy with the highest seqno. It fails if two such copies differ.
func newest(copies []copyOf) (copyOf, error) {
	best := slices.MaxFunc(copies, func(a, b copyOf) int { return cmp.Compare(a.seqno, b.seqno) })
	for _, c := range copies {
		a, b := c.area.Text, best.area.Text
		if c.seqno == best.seqno && (a.Checksum != b.Checksum || a.Size != b.Size || a.Section.String() != b.Section.String()) {
			return best, fmt.Errorf("%v and %v both have seqno %d and differ; scan without one of the two disks", best, c, c.seqno)
		}
	}
	return best, nil
}

func newAssembled(copies []copyOf, byPV map[UUID][]*Found) *Assembled {
	best, err := newest(copies)
	a := &Assembled{Name: best.name, ID: best.id, Seqno: best.seqno, Err: err, Disks: map[string]*Found{}}
	for _, c := range copies {
		if c.disk.Group == nil {
			c.disk.Group = a
		}
		if c.seqno < best.seqno {
			a.problem("%v is old: seqno %d of %d", c, c.seqno, best.seqno)
		}
	}
	if err != nil {
		return a
	}
	g, err := ParseGroup(best.area.Text.Section)
	if err != nil {
		a.Err = &DiskError{best.disk.Name, best.area.Offset + best.area.Text.Offset, "metadata", err}
		return a
	}
	a.Group = g
	a.findDisks(byPV)
	a.tellStrangers(copies)
	return a
}

func (a *Assembled) problem(format string, args ...any) {
	a.Problems = append(a.Problems, fmt.Sprintf(format, args...))
}

// fail makes the group unusable. Only the first reason is kept.
func (a *Assembled) fail(format string, args ...any) {
	if a.Err == nil {
		a.Err = fmt.Errorf(format, args...)
	}
}

// findDisks assigns disks to the physical volumes.
func (a *Assembled) findDisks(byPV map[UUID][]*Found) {
	for _, p := range a.PVs {
		ds := byPV[p.ID]
		switch {
		case len(ds) == 0:
			a.problem("%s (%v, last seen at %s) is missing", p.Name, p.ID, cmp.Or(p.Device, "an unknown place"))
			continue
		case len(ds) > 1:
			a.fail("%s and %s are both %v; scan without one of the two", ds[0].Name, ds[1].Name, p.ID)
		case p.Missing():
			a.problem("%s (%s) was missing when the group was changed and is not used", p.Name, ds[0].Name)
			ds[0].Group = a
			continue
		}
		a.takeDisk(p, ds[0])
	}
}

func (a *Assembled) takeDisk(p *PV, d *Found) {
	d.Group = a
	a.Disks[p.Name] = d
	if need := max(p.Size, p.Start+p.Count*a.ExtentSize); d.sectors() < need {
		a.problem("%s has %d sectors, and the group needs %d of it", d.Name, d.sectors(), need)
	}
	if !d.Label.Used && d.Label.Version >= 2 {
		a.problem("%s: its label says that it belongs to no group", d.Name)
	}
	a.Problems = append(a.Problems, d.problems()...)
}

// tellStrangers reports disks that hold a text of the group but are not part of its
// newest one.
func (a *Assembled) tellStrangers(copies []copyOf) {
	told := map[*Found]bool{}
	for _, c := range copies {
		known := slices.ContainsFunc(a.PVs, func(p *PV) bool { return p.ID == c.disk.Label.ID })
		if !known && !told[c.disk] {
			told[c.disk] = true
			a.Strangers = append(a.Strangers, c.disk)
			if c.seqno == a.Seqno {
				a.fail("%v is the newest, but the disk is not in it", c)
			}
			a.problem("%s was removed from the group", c.disk.Name)
		}
	}
}

// tellSameNames reports groups with the same name.
func tellSameNames(groups []*Assembled) {
	for i, a := range groups {
		for j, b := range groups {
			if i != j && a.Name == b.Name {
				a.problem("there is another group with that name, %v", b.ID)
			}
		}
	}
}

// tellTwoGroups makes groups unusable that claim the same disk.
func tellTwoGroups(groups []*Assembled) {
	owner := map[*Found]*Assembled{}
	for _, a := range groups {
		for _, d := range a.Disks {
			if b := owner[d]; b != nil {
				a.fail("%s belongs to the group %s (%v) as well", d.Name, b.Name, b.ID)
				b.fail("%s belongs to the group %s (%v) as well", d.Name, a.Name, a.ID)
			}
			owner[d] = a
		}
	}
}

// Missing returns the names of the physical volumes without a disk.
func (a *Assembled) Missing() (names []string) {
	if a.Group == nil {
		return nil
	}
	for _, p := range a.PVs {
		if a.Disks[p.Name] == nil {
			names = append(names, p.Name)
		}
	}
	return names
}

// Partial reports whether part of the volume is on a missing disk.
func (a *Assembled) Partial(l *LV) bool { return a.partial(l, map[*LV]bool{}) }

func (a *Assembled) partial(l *LV, seen map[*LV]bool) bool {
	if seen[l] {
		return false
	}
	seen[l] = true
	for _, s := range l.Segments {
		for _, p := range s.Kind.places() {
			if a.pvs[p.Name] != nil && a.Disks[p.Name] == nil {
				return true
			}
		}
	}
	for _, name := range a.below(l) {
		if a.partial(a.lvs[name], seen) {
			return true
		}
	}
	return false
}

// errUnusable is the error for a group that cannot be used.
var errUnusable = errors.New("the group cannot be used")
