package kcopyd

import (
	"fmt"
	"testing"
	"time"

	"udm/blk/memdev"
	"udm/env"
)

// Who comes later does not make a copy wait longer: each waits for its own
// pauses, of which there are at most so many.
func TestThrottleBoundsTheWaitOfEachCopy(t *testing.T) {
	const took = 20 * time.Millisecond // of the device
	for _, every := range []time.Duration{3 * time.Millisecond, 30 * time.Millisecond, 99 * time.Millisecond} {
		for _, percent := range []uint32{0, 1, 5} {
			t.Run(fmt.Sprint(percent, "% every ", every), func(t *testing.T) {
				longest, ended := throttled(percent, every, took)
				if most := maxPauses*throttlePause + took; longest > most {
					t.Errorf("a copy took %v, promised are %v", longest, most)
				}
				if longest < throttlePause {
					t.Error("no copy was held back")
				}
				if ended == 0 {
					t.Error("nothing was copied")
				}
			})
		}
	}
}

// throttled starts a small copy now and then for half a minute, and tells how
// long the slowest of them took.
func throttled(percent uint32, every, took time.Duration) (longest time.Duration, ended int) {
	e := env.NewStepped()
	c := New(e, Options{SubJob: 8, Throttle: NewThrottle(e, func() uint32 { return percent }), Memory: 1 << 30})
	from := Open(&slowDev{Device: memdev.New(64), e: e, d: took})
	to := Open(memdev.New(64))
	const span = 30 * time.Second
	for e.Now() < span {
		started := e.Now()
		j := &Job{From: Place{from, 0}, Sectors: 8, Done: func(*Job) {
			longest, ended = max(longest, e.Now()-started), ended+1
		}}
		j.SetTo(Place{to, 0})
		c.Copy(j)
		e.Advance(every)
	}
	for e.Pending() > 0 {
		e.Advance(throttlePause)
	}
	c.Close()
	return longest, ended
}
