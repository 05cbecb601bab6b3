package kcopyd

import (
	"sync"
	"sync/atomic"
	"testing"

	"udm/env"
)

func TestInFlightKeepsToItsLimit(t *testing.T) {
	const limit = 3
	var tl InFlight
	tl.Init()
	var now, most atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10000 {
				sh := tl.Pick()
				if !tl.TakeUpTo(limit, sh, 1) {
					tl.Reclaim()
					continue
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				now.Add(-1)
				tl.Give(sh, 1)
			}
		})
	}
	wg.Wait()
	if most.Load() > limit || tl.Used() != 0 {
		t.Fatalf("%d at a time, %d left", most.Load(), tl.Used())
	}
}

func TestWhatAShardKeepsIsNotUsed(t *testing.T) {
	var tl InFlight
	tl.Init()
	for i := range tl.shards {
		tl.Take(&tl.shards[i], 1)
		tl.Give(&tl.shards[i], 1)
	}
	if tl.used.Load() != int64(len(tl.shards)) {
		t.Fatalf("%d in reserve", tl.used.Load())
	}
	if tl.Over(0) {
		t.Fatal("over")
	}
	tl.Take(tl.Pick(), 1)
	if !tl.Over(0) || tl.Over(1) {
		t.Fatal("one used and not seen")
	}
}

// Things end on other shards than those that begin meanwhile.
func TestInFlightIsIdleOnlyWithNothingInFlight(t *testing.T) {
	var tl InFlight
	tl.Init()
	tl.Begin(&tl.shards[0])
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		last := &tl.shards[0]
		for i := 1; ; i++ {
			next := i % len(tl.shards)
			sh := tl.Begin(&tl.shards[next])
			last.End()
			last = sh
			select {
			case <-stop:
				last.End()
				return
			default:
			}
		}
	})
	for range 1 << 22 {
		if tl.Idle() {
			t.Error("idle")
			break
		}
	}
	close(stop)
	wg.Wait()
	if !tl.Idle() {
		t.Fatal("not idle")
	}
}

// A job that is to be done at once does not wait for the callback of another one.
func TestAtOnce(t *testing.T) {
	e := env.NewStepped()
	c := New(e, Options{})
	for _, atOnce := range []bool{false, true} {
		inside, was := false, false
		second := &Job{AtOnce: atOnce, Done: func(*Job) { was = inside }}
		first := &Job{AtOnce: atOnce, Done: func(*Job) {
			inside = true
			c.Prepare(second)
			c.Fire(second)
			inside = false
		}}
		c.Prepare(first)
		c.Fire(first)
		e.Run()
		if was != atOnce {
			t.Fatalf("at once %v: inside %v", atOnce, was)
		}
	}
	c.Close()
}
