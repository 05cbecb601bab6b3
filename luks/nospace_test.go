package luks

import (
	"errors"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
)

// TestNoSpace lets the file below a disk find no space at each write of each change.
// The change says so, the disk opens as before, and the same change succeeds when
// there is space.
func TestNoSpace(t *testing.T) {
	for version := 1; version <= 2; version++ {
		d := memdev.New(diskSectors)
		c := create(t, d, small(version), "old")
		_, err := c.AddKey(unlock(t, c, "old"), []byte("other"), cheap[version])
		must(t, err)
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				blktest.FullEach(t, 1, func(t *testing.T, f *blktest.Failer) { s.withoutSpace(t, f, d.CrashCloneAll()) })
			})
		}
	}
}

func (s *scenario) withoutSpace(t *testing.T, f *blktest.Failer, d *memdev.Device) {
	c := open(t, d)
	k := unlock(t, c, "old")
	c.store.dev = f.Wrap(d)
	err := s.change(c, k, c.Header.Version)
	if !told(err, c, f) || err != nil && !errors.Is(err, blk.NoSpace) {
		t.Errorf("%v: %v", f, err)
	}
	if err == nil {
		return
	}
	unlock(t, open(t, d), "other")
	f.MakeSpace()
	c = open(t, d)
	if k, err = c.Unlock([]byte("old"), AnySlot); err != nil {
		return // it was removed or changed all the same
	}
	must(t, s.change(c, k, c.Header.Version))
	unlock(t, open(t, d), s.after)
}

// TestNoSpaceForAFormat: a disk whose header finds no space is none, and can be
// formatted when there is space.
func TestNoSpaceForAFormat(t *testing.T) {
	for version := 1; version <= 2; version++ {
		blktest.FullEach(t, 1, func(t *testing.T, f *blktest.Failer) {
			d := memdev.New(diskSectors)
			c, err := Create(env.Real(), f.Wrap(d), small(version), []byte("new"), Options{})
			if !told(err, c, f) || err != nil && !errors.Is(err, blk.NoSpace) {
				t.Errorf("%v: %v", f, err)
			}
			f.MakeSpace()
			if c, err := Open(env.Real(), d, Options{}); err == nil {
				unlock(t, c, "new")
				return
			}
			unlock(t, create(t, d, small(version), "new"), "new")
		})
	}
}
