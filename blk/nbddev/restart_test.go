package nbddev_test

import (
	"flag"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/blk/nbddev"
	"udm/internal/invariants"
)

var kills = flag.Int("kills", 0, "how often each server is killed; 0: as often as a test has time for")

// restarts is how often a server dies that has one of so many shares of a test: fewer times
// in a short test and under the race detector, which is slow.
func restarts(shares int) int {
	switch {
	case *kills > 0:
		return *kills
	case invariants.Enabled || testing.Short():
		return max(1, 45/shares)
	}
	return max(1, 210/shares)
}

// The server forgets what was not flushed whenever it dies, and no user sees that;
// what a flush covered is on its medium.
func TestServerThatForgets(t *testing.T) {
	for name, o := range map[string]nbddev.Options{
		"one connection": {Connections: 1},
		"four":           {},
		"small buffer":   {Buffer: 1}, // the least that there is
	} {
		t.Run(name, func(t *testing.T) {
			blktest.Leaks(t)
			r := newRemote(t, memdev.New(4096, memdev.Volatile))
			r.start()
			d := r.open(o)
			l := blktest.StartLoad(t, d, 4096, false)
			for range restarts(1) / 3 {
				if !l.More(10 + rand.IntN(40)) {
					break
				}
				r.restart(func(d *memdev.Device) *memdev.Device { return d.CrashClone(rand.Uint64()) })
			}
			l.Stop()
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			r.stop()
			l.M.Crash()
			l.D = r.disk.CrashClone(rand.Uint64())
			l.Read(0, 4096)
		})
	}
}

// Repeating older writes does not put a durable one at risk.
func TestFUAOverWhatIsKept(t *testing.T) {
	blktest.Leaks(t)
	r := newRemote(t, memdev.New(64, memdev.Volatile))
	r.start()
	d := r.open(nbddev.Options{})
	l := blktest.NewLoad(t, d, 64)
	l.Write(blk.Write, 0, 32, 0)
	l.Write(blk.Write, 8, 8, blk.FUA)
	l.Write(blk.WriteZeroes, 12, 8, 0)
	l.Write(blk.Write, 10, 4, blk.FUA)
	r.restart(same)
	l.Read(0, 64)
	for seed := range uint64(100) {
		x := &blktest.Load{T: t, D: r.disk.CrashClone(seed), M: l.M.Clone()}
		x.M.Crash()
		x.Read(0, 64)
	}
	d.Close()
}

// A connection that is cut at any byte of the conversation costs nothing.
func TestCutAtEveryByte(t *testing.T) {
	blktest.Leaks(t)
	opened, step := 0, int64(1)
	if invariants.Enabled {
		step = 7
	}
	for n := int64(1); ; n += step {
		r := newRemote(t, memdev.New(64, memdev.Volatile))
		r.fresh, r.shape = true, cutter(n)
		r.start()
		o := nbddev.Options{Connections: 1}
		d, err := r.tryOpen(o)
		if err != nil { // cut in the first handshake
			if d, err = r.tryOpen(o); err != nil {
				t.Fatal(err)
			}
		} else {
			opened++
		}
		converse(t, d)
		whole := r.dials.Load() == 1
		d.Close()
		r.stop()
		if t.Failed() {
			t.Fatalf("cut after %d bytes", n)
		}
		if whole {
			break
		}
	}
	if int64(opened) < 1000/step {
		t.Errorf("the connection was cut at %d bytes only", opened)
	}
}

func converse(t *testing.T, d blk.Device) {
	t.Helper()
	l := blktest.NewLoad(t, d, 64)
	l.Write(blk.Write, 3, 1, 0)
	l.Flush()
	l.Write(blk.Write, 3, 1, 0)
	l.Write(blk.WriteZeroes, 4, 2, 0)
	l.Read(3, 2)
	blk.ExtentsOf(d, 0, 64)
	l.Write(blk.Write, 4, 1, blk.FUA)
	l.Read(4, 1)
}
