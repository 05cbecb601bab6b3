package pdata

import (
	"syscall"
	"testing"
)

// TestSealedBlocksStay: a block that a sealed transaction freed is not given out
// before that transaction is on disk, neither by the data map nor by the metadata
// map.
func TestSealedBlocksStay(t *testing.T) {
	s := newStore(t, 300, 0)
	ok(t, s.sm.Extend(4))
	for range 4 {
		must(s.sm.New())
	}
	var meta []uint64
	for s.tm.sm.Free() > 40 {
		meta = append(meta, must(s.tm.sm.New()))
	}
	s.commit()
	ok(t, s.sm.Dec(2, 3))
	for _, nr := range meta {
		ok(t, s.tm.sm.Dec(nr, nr+1))
	}
	ok(t, s.commitBeside(func() {
		if nr, err := s.sm.FindFree(nil); err != syscall.ENOSPC {
			t.Errorf("block %d of the data is given out (%v) while the disk still uses it", nr, err)
		}
		for s.tm.sm.Free() > 0 {
			if nr := must(s.tm.sm.New()); nr >= meta[0] && nr <= meta[len(meta)-1] {
				t.Fatalf("metadata block %d is given out while the disk still uses it", nr)
			}
		}
	}))
	if nr := must(s.sm.FindFree(nil)); nr != 2 {
		t.Errorf("block %d is free, want 2", nr)
	}
	if free := s.tm.sm.Free(); free < uint64(len(meta)) {
		t.Errorf("%d metadata blocks are free, %d were freed", free, len(meta))
	}
}
