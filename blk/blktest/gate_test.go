package blktest_test

import (
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
)

func envs() map[string]env.Env {
	return map[string]env.Env{"real": env.Real(), "stepped": env.NewStepped(), "sim": env.NewSim(1)}
}

func submit(d blk.Device, op blk.Op, sector, sectors uint64, f blk.Flags, ended *[]uint64) {
	b := &blk.Bio{Op: op, Sector: sector, Flags: f}
	if op.HasData() {
		b.SetData(make([]byte, sectors*512))
	} else {
		b.Sectors = sectors
	}
	b.End = func(b *blk.Bio) { *ended = append(*ended, sector<<8|uint64(b.Status())) }
	d.Submit(b)
}

func TestGateHoldsUntilReleasedInAnyOrder(t *testing.T) {
	for name, e := range envs() {
		t.Run(name, func(t *testing.T) {
			g := blktest.NewGate(e, memdev.New(64))
			var ended []uint64
			submit(g, blk.Write, 8, 8, blk.FUA, &ended)
			submit(g, blk.Read, 16, 1, 0, &ended)
			submit(g, blk.Flush, 0, 0, 0, &ended)
			if len(ended) != 0 || len(g.WaitHeld(3)) != 3 {
				t.Fatalf("ended %v, held %v", ended, g.Held())
			}
			if r, ok := g.Find(blk.Write, 15); !ok || r.String() != "#0 write 8+8 fua" {
				t.Fatalf("found %v", r)
			}
			if _, ok := g.Find(blk.Write, 16); ok {
				t.Fatal("found a write where none is")
			}
			g.Release(2)
			g.Fail(0, blk.NoSpace)
			if g.Close() == nil {
				t.Fatal("closed with a request held")
			}
			if g.ReleaseAll() != 1 {
				t.Fatal("released the wrong number")
			}
			if want := []uint64{0, 8<<8 | uint64(blk.NoSpace), 16 << 8}; !slices.Equal(ended, want) {
				t.Fatalf("ended %v, want %v", ended, want)
			}
			if !slices.Equal(g.Ended(), []int{2, 0, 1}) {
				t.Fatal(g.Ended())
			}
			if g.Trace() != "write 8+8 fua\nread 16+1\nflush 0+0\n" {
				t.Fatal(g.Trace())
			}
			g.Forget()
			g.Open()
			submit(g, blk.Read, 1, 1, 0, &ended)
			if len(ended) != 4 || g.Submitted()[0].Index != 3 {
				t.Fatal("an open gate holds, or indices start again")
			}
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestWaitHeldWaitsForAnotherThread(t *testing.T) {
	g := blktest.NewGate(env.Real(), memdev.New(64))
	done := make(chan error)
	go func() { done <- blk.FlushDevice(env.Real(), g) }()
	g.Release(g.WaitHeld(1)[0].Index)
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	s := env.NewSim(3)
	g = blktest.NewGate(s, memdev.New(64))
	s.Go("user", func() { blk.FlushDevice(s, g) })
	g.Release(g.WaitHeld(1)[0].Index)
	s.Run()
	if len(g.Ended()) != 1 {
		t.Fatal("not ended")
	}
}

func TestReleaseOfWhatIsNotHeldPanicsWithTheList(t *testing.T) {
	g := blktest.NewGate(env.Real(), memdev.New(64))
	var ended []uint64
	submit(g, blk.Read, 1, 1, 0, &ended)
	defer func() {
		if r := recover(); r == nil || !strings.Contains(r.(string), "#0 read 1+1") {
			t.Fatalf("got %v", r)
		}
	}()
	g.Release(7)
}
