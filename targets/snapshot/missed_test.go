package snapshot

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

// Each of these finds a planted defect that no other test found.

// A write to the origin waits for all reads of the chunk that are in flight there.
func TestOriginWriteWaitsForTheLastRead(t *testing.T) {
	r, s, o := gatedSnap(t)
	first, last := r.read(s, 41, 1), r.read(s, 43, 1)
	w := r.write(o, 40, 8, 2)
	r.release("O", blk.Read, 42) // the copy
	r.gates["C"].Open()
	r.release("O", blk.Read, 41)
	r.wantEnd(first, blk.OK)
	r.wantWaiting(w, last)
	r.wantTrace("O", "read 41+1", "read 43+1", "read 40+8")
	r.release("O", blk.Read, 43)
	r.wantEnd(last, blk.OK)
	r.wantTrace("O", "read 41+1", "read 43+1", "read 40+8", "write 40+8")
	r.open()
	r.wantEnd(w, blk.OK)
}

// A copy that succeeds after the snapshot was dropped adds no exception.
func TestCopyOutlivesItsSnapshot(t *testing.T) {
	for _, kind := range []string{"P", "N"} {
		for _, sectors := range []uint64{3, 8} {
			r := newGated(t, stepped(), 256, 512)
			s := r.device("s", 256, "snapshot O C "+kind+" 8")
			r.shut()
			w := r.write(s, 40, sectors, 2)
			r.snap("s").invalidate("a test")
			r.open()
			r.wantEnd(w, blk.IOErr)
			if _, ok := r.snap("s").body.Load().complete.lookup(5); ok {
				t.Error("an invalid snapshot got an exception")
			}
			r.snap("s").mustBeIdle(t)
		}
	}
}

// Removing a snapshot from its origin's list makes every exception visible that was
// being added.
func TestLeavingWaitsForWhoMakesAnException(t *testing.T) {
	r := newGated(t, env.Real(), 4096, 8192)
	o := r.device("o", 4096, "snapshot-origin O")
	r.device("s", 4096, "snapshot O C P 8")
	sn := r.snap("s")
	r.gates["O"].Shut()
	var once atomic.Bool
	var wg sync.WaitGroup
	sn.hook = func(p point) {
		if p != pointPlaced || !once.CompareAndSwap(false, true) {
			return
		}
		wg.Go(func() {
			sn.group.unregister(sn)
			if !sn.unfinished() {
				t.Error("an exception that was being made has not been seen")
			}
		})
		for sn.has(flagActive) {
			runtime.Gosched()
		}
		for range 100 { // time for one that does not wait
			runtime.Gosched()
		}
	}
	w := r.write(o, 40, 1, 2)
	wg.Wait()
	r.open()
	r.gates["O"].Open()
	r.remove("s")
	r.remove("o")
	r.wantEnd(w, blk.OK)
}

// A bio that is to be held back is counted before it is checked again: if the last copy
// ends in between, that releases it.
func TestHeldBackBiosAreCountedFirst(t *testing.T) {
	for _, name := range []string{"s", "o"} {
		r := newGated(t, stepped(), 256, 512)
		r.device("o", 256, "snapshot-origin O")
		r.device("s", 256, "snapshot O C P 8")
		sn := r.snap("s")
		sn.registry.threshold.Set(0)
		r.shut()
		first := r.write(r.dev(name), 0, 3, 2)
		looked := 0
		sn.hook = func(p point) {
			if p != pointCounted {
				return
			}
			if looked++; sn.throttled.count.Load() == 0 {
				t.Error("looked at before it was counted")
			}
		}
		second := r.write(r.dev(name), 8, 3, 2)
		r.wantWaiting(first, second)
		r.open()
		r.wantEnd(first, blk.OK)
		r.wantEnd(second, blk.OK)
		if looked == 0 {
			t.Error("nothing was held back")
		}
	}
}

// Zeroing the areas of a store allocates their space.
func TestAreasTakeTheirSpace(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	s := r.device("s", 256, "snapshot O C P 1")
	for i := range uint64(40) { // 32 in an area
		r.wantEnd(r.write(s, i, 1, 2), blk.OK)
	}
	var zeroed []string
	for line := range strings.Lines(r.gates["C"].Trace()) {
		if strings.HasPrefix(line, "write-zeroes") {
			zeroed = append(zeroed, strings.TrimSpace(line))
		}
	}
	if got := strings.Join(zeroed, ", "); got != "write-zeroes 0+2 nounmap, write-zeroes 34+1 nounmap" {
		t.Fatal(got)
	}
}

// A store that is opened when its last area is exactly full continues behind the next
// area.
func TestOpenedWhenAnAreaIsFull(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	for i := range uint64(40) { // 32 in an area
		if i%32 == 0 || i == 35 {
			if i > 0 {
				r.remove("s")
			}
			r.device("s", 256, "snapshot O C P 1")
		}
		r.wantEnd(r.write(r.dev("s"), i, 1, 2), blk.OK)
	}
	r.remove("s")
	s := r.device("s", 256, "snapshot O C P 1")
	r.wantData(s, 0, 40, 2)
	r.wantData(s, 40, 216, 1)
}

// What a store said when it was opened is made durable before the origin is written, once:
// that the snapshot is invalid, and which chunks it has.
func TestWhatWasReadIsDurable(t *testing.T) {
	for _, valid := range []bool{true, false} {
		r := newGated(t, stepped(), 256, 512, memdev.Volatile)
		o := r.device("o", 256, "snapshot-origin O")
		r.device("s", 256, "snapshot O C P 8")
		r.wantEnd(r.write(o, 40, 1, 2), blk.OK)
		if !valid {
			r.snap("s").invalidate("a test wants it")
			r.run()
		}
		r.remove("s")
		r.device("s", 256, "snapshot O C P 8")
		r.forget()
		r.gates["C"].Shut()
		first, second := r.write(o, 40, 1, 3), r.write(o, 41, 1, 3)
		r.wantWaiting(first, second)
		if held := r.gates["C"].Held(); len(held) != 1 || held[0].Op != blk.Flush || len(r.gates["O"].Submitted()) > 0 {
			t.Errorf("valid %v: %v is held, the origin has %v", valid, held, r.gates["O"].Submitted())
		}
		r.open()
		r.wantEnd(first, blk.OK)
		r.wantEnd(second, blk.OK)
		r.forget()
		r.wantEnd(r.write(o, 42, 1, 3), blk.OK)
		if got := r.gates["C"].Submitted(); len(got) > 0 {
			t.Errorf("valid %v: later the store gets %v", valid, got)
		}
	}
}

// Writes to the origin that wait for the flush get their places in the store before one that
// comes when the flush is done, but they are not yet mapped: it may be the rest of the same write.
func TestTheFlushKeepsTheOrder(t *testing.T) {
	r := newGated(t, stepped(), 256, 512, memdev.Volatile)
	o := r.device("o", 256, "snapshot-origin O")
	r.device("s", 256, "snapshot O C P 8")
	r.remove("s")
	r.device("s", 256, "snapshot O C P 8")
	r.gates["C"].Shut()
	first := r.write(o, 40, 1, 3)
	r.wantWaiting(first)
	var second *io
	r.snap("s").stopOnce(pointAllocate, func() { second = r.write(o, 80, 1, 4) })
	r.open()
	r.wantEnd(first, blk.OK)
	r.wantEnd(second, blk.OK)
	for chunk, want := range map[uint64]uint64{5: 2, 10: 3} {
		if where, ok := r.snap("s").body.Load().complete.lookup(chunk); !ok || where != want {
			t.Errorf("chunk %d is copied to %d, %v, want %d", chunk, where, ok, want)
		}
	}
}

// If the store that was read cannot be flushed, the snapshot is lost, and the origin goes on.
// A handover before that passes the need on.
func TestWhatWasReadCannotBeFlushed(t *testing.T) {
	for _, handover := range []bool{false, true} {
		r := newGated(t, stepped(), 256, 512, memdev.Volatile)
		o := r.device("o", 256, "snapshot-origin O")
		for range 2 {
			r.device("s", 256, "snapshot O C P 8")
			r.remove("s")
		}
		r.device("s", 256, "snapshot O C P 8")
		if handover {
			r.ok(r.load("s", 256, "snapshot O C P 8"))
			r.ok(r.resume("s"))
		}
		r.gates["C"].Shut()
		w := r.write(o, 40, 1, 3)
		r.wantWaiting(w)
		held := r.gates["C"].Held()[0]
		if held.Op != blk.Flush {
			t.Errorf("handover %v: %v comes before the flush", handover, held)
		}
		r.gates["C"].Fail(held.Index, blk.IOErr)
		r.run()
		r.open()
		r.wantEnd(w, blk.OK)
		r.wantInfo("s", "Invalid")
	}
}

// A snapshot that is removed waits for the flush of its store.
func TestRemovalAwaitsTheFlush(t *testing.T) {
	r := newGated(t, env.Real(), 256, 512, memdev.Volatile)
	o := r.device("o", 256, "snapshot-origin O")
	r.device("s", 256, "snapshot O C P 8")
	r.remove("s")
	r.device("s", 256, "snapshot O C P 8")
	sn := r.snap("s")
	r.gates["C"].Shut()
	w := r.write(o, 40, 1, 3)
	r.gates["C"].WaitHeld(1)
	var removed atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		r.remove("s")
		removed.Store(true)
	})
	for sn.has(flagActive) {
		runtime.Gosched()
	}
	for range 100 { // time for one that does not wait
		runtime.Gosched()
	}
	if removed.Load() {
		t.Error("it is removed before its store is flushed")
	}
	r.gates["C"].Open()
	wg.Wait()
	r.wantEnd(w, blk.OK)
}
