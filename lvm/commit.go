package lvm

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"udm/blk"
	"udm/env"
	"udm/lvm/text"
)

// Incomplete is the error of a commit that took place, though some of its writes
// failed. The next commit makes up for them.
type Incomplete struct{ Err error }

func (e *Incomplete) Error() string {
	return fmt.Sprintf("the group was changed, but not all of its copies: %v", e.Err)
}

func (e *Incomplete) Unwrap() error { return e.Err }

// Commit makes s the text of the group. Package edit describes the steps. The disks
// must be those that the group was assembled from, and must be locked since then.
// After an error other than *Incomplete, the old text counts, unless the disks fail
// to read back what could not be written.
func (a *Assembled) Commit(e env.Env, s *text.Section) error {
	copies, left, err := a.copies(e, append([]byte(s.String()), 0))
	if err == nil {
		err = each(copies, (*copyWriter).writeText)
	}
	if err != nil {
		return err
	}
	if err := each(copies, (*copyWriter).precommit); err != nil {
		return errors.Join(err, each(copies, (*copyWriter).revert))
	}
	return a.finish(e, copies, s, left)
}

// finish commits. The group is changed as soon as one header is written. left tells of
// areas that are left out.
func (a *Assembled) finish(e env.Env, copies []*copyWriter, s *text.Section, left error) error {
	var errs []error
	for _, c := range copies {
		if err := c.commit(); err != nil {
			errs = append(errs, err)
			continue
		}
		c.area.Text, c.area.Err = &Text{c.next.offset, c.next.size, c.next.checksum, s.Clone()}, nil
	}
	failed := errors.Join(errs...)
	if len(errs) == len(copies) {
		return failed
	}
	if failed = errors.Join(left, failed, a.markUsed(e)); failed != nil {
		return &Incomplete{failed}
	}
	return nil
}

// markUsed notes in the labels of the group's disks that they belong to a group.
func (a *Assembled) markUsed(e env.Env) (err error) {
	for _, d := range a.byName() {
		if d.Label.Version >= labelVersion && !d.Label.Used {
			d.Label.Used = true
			err = errors.Join(err, writeLabel(e, d))
		}
	}
	return err
}

// byName returns the group's disks in the order of their names in its text.
func (a *Assembled) byName() (disks []*Found) {
	for _, p := range slices.Sorted(maps.Keys(a.Disks)) {
		disks = append(disks, a.Disks[p])
	}
	return disks
}

// Erase removes the group: its disks become physical volumes without a group.
func (a *Assembled) Erase(e env.Env) error {
	for _, d := range a.byName() {
		for _, area := range d.Areas {
			if err := writeSync(e, d, encodeHeader(area.Range, slot{}, slot{}), area.Offset); err != nil {
				return err
			}
		}
	}
	for _, d := range a.byName() {
		d.Label.Used = false
		if err := writeLabel(e, d); err != nil {
			return err
		}
	}
	return nil
}

func writeLabel(e env.Env, d *Found) error {
	return writeSync(e, d, d.Label.encode(), d.Label.Sector*blk.SectorSize)
}

// writeSync writes and makes durable.
func writeSync(e env.Env, d *Found, p []byte, offset uint64) error {
	f := blk.NewFile(e, d.Device)
	_, err := f.WriteAt(p, int64(offset))
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return &DiskError{d.Name, offset, "write", err}
	}
	return nil
}

// each calls do for all copies, up to the first error.
func each(copies []*copyWriter, do func(*copyWriter) error) error {
	for _, c := range copies {
		if err := do(c); err != nil {
			return err
		}
	}
	return nil
}
