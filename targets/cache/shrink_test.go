package cache_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/cache"
)

// short is a table of a part of the origin.
var short = fmt.Sprintf("0 %d cache a b c %d 2 metadata2 writeback smq 0", 4*bs, bs)

// shrinkable is a cache with clean blocks, one of them beyond the end of the short table. Writes
// to its metadata go by way of a tap.
func shrinkable(t *testing.T) (*world, *tap) {
	w := newWorld(t, tables["writeback"])
	a := &tap{Device: kept{w.disks["a"]}}
	w.wrap = func(name string, d blk.Device) blk.Device {
		if name == "a" {
			return a
		}
		return d
	}
	sim := env.NewStepped()
	w.must(w.start(sim))
	w.write(0, bs, 1, 0)
	w.write(8*bs, bs, 2, 0)
	w.flush()
	for w.status().Dirty > 0 {
		sleep(sim, time.Second)
	}
	w.flush()
	w.must(w.dev.Suspend(t.Context(), false))
	return w, a
}

// tap is a disk that calls wrote after each write, or is full.
type tap struct {
	blk.Device
	wrote func()
	full  bool
}

func (d *tap) Submit(b *blk.Bio) {
	if b.Op != blk.Write {
		d.Device.Submit(b)
		return
	}
	if d.full {
		b.Complete(blk.NoSpace)
		return
	}
	d.Device.Submit(b)
	if d.wrote != nil {
		d.wrote()
	}
}

func (w *world) status() *cache.Status {
	st, err := cache.ParseStatus(w.dev.Lines(dm.Info, false, 0)[0].Params)
	w.must(err)
	return st
}

// shrink loads the short table, which has no place for what is open.
func (w *world) shrink() error {
	w.must(w.h.Close())
	w.h = nil
	return w.load(short)
}

// TestCrashInShrinking cuts the power after each write to the metadata while a shorter table
// is resumed, and after it: the cache is whole, and what is beyond the end does not come back
// once the table is in use.
func TestCrashInShrinking(t *testing.T) {
	w, a := shrinkable(t)
	var cut []*world
	a.wrote = func() {
		for seed := range uint64(4) {
			cut = append(cut, w.crash(seed))
		}
	}
	w.must(w.shrink())
	a.wrote = nil
	if len(cut) == 0 {
		t.Fatal("the metadata have not been written")
	}
	for seed := range uint64(4) {
		after := w.crash(seed)
		w.must(after.start(env.NewStepped()))
		if n := after.status().Resident; n != 1 {
			t.Errorf("%d blocks are in the cache after the table was in use", n)
		}
		after.close()
	}
	for _, after := range cut {
		after.whole()
	}
	w.close()
}

// TestShrinkingOnAFullHost: without space for the metadata a shorter table is refused, and the
// longer one goes on.
func TestShrinkingOnAFullHost(t *testing.T) {
	w, a := shrinkable(t)
	a.full = true
	if err := w.shrink(); !errors.Is(err, blk.NoSpace) && dm.ErrnoOf(err) != blk.NoSpace.Errno() {
		t.Errorf("with a full metadata disk: %v", err)
	}
	w.close()
	a.full = false
	w.must(w.start(env.NewStepped()))
	if n := w.status().Resident; n != 2 {
		t.Errorf("%d blocks are in the cache", n)
	}
	w.must(w.read(0, originSize, false))
	w.close()
}
