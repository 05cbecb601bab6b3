//go:build linux

package vhost

import (
	"testing"
	"time"
)

// wait is a wait of a length, watched with looks at the clock that are far apart or not. It
// reports whether the whole wait was watched.
func (p *polling) wait(from, length, look time.Duration) (watched bool) {
	if watched = p.begin(from); watched {
		for at := from + look; at < from+length && watched; at += look {
			watched = p.goOn(at)
		}
	}
	p.end(from + length)
	return watched
}

func TestPolling(t *testing.T) {
	const look, short, long = time.Microsecond, 10 * time.Microsecond, time.Second
	p, now := &polling{limit: pollLimit}, time.Hour
	step := func(length, look time.Duration, want bool, why string) {
		t.Helper()
		if got := p.wait(now, length, look); got != want {
			t.Errorf("%s: watched to its end: %v", why, got)
		}
		now += length
	}
	step(short, look, false, "the first wait")
	step(short, look, true, "after a short one")
	step(pollLimit, look, true, "one of the limit")
	step(long, look, false, "one that turns out long")
	if p.begin(now) {
		t.Error("a ring is watched after a long wait")
	}
	step(short, look, false, "after a long one")
	step(short, pollLost+1, true, "one that ends at the first look")
	step(4*pollLost, 2*pollLost, false, "the processor was lost")
	for range pollRest {
		step(short, look, false, "when others need the processor")
	}
	step(short, look, true, "after that")
}

// A worker that watches notices requests, ends and commands, and what it takes for that is
// bounded.
func TestWatch(t *testing.T) {
	x := newRounds(t, newDisk(), false)
	w := x.w
	w.cmds = make(chan func(), 1)
	w.polling = polling{limit: time.Hour}
	watch := func() bool {
		w.polling.begin(time.Since(began))
		// The processor may be taken from this test at any time.
		for !w.watch() && w.polling.rest > 0 {
			w.polling.rest = 0
			w.polling.begin(time.Since(began))
		}
		return w.polling.rest == 0
	}
	w.cmds <- func() {}
	if !watch() {
		t.Error("a command is not noticed")
	}
	<-w.cmds
	w.endedLate(&job{})
	if !watch() {
		t.Error("an end is not noticed")
	}
	w.late.list = nil
	x.add(typeIn, 1, func() uint64 { return 0 })
	if !watch() {
		t.Error("a request is not noticed")
	}
	w.ring.enabled = false
	w.polling.limit = 1
	w.polling.begin(time.Since(began))
	if w.watch() {
		t.Error("a ring that is not enabled is watched")
	}
	w.ring.enabled = true
	for watchers.take() {
		defer watchers.leave()
	}
	if w.polling.begin(time.Since(began)); w.watch() {
		t.Error("more workers watch than may")
	}
}

func TestSpareProcessors(t *testing.T) {
	for n, want := range map[int]int{1: 0, 2: 0, 3: 0, 4: 1, 8: 3, 64: 31} {
		if got := spare(n); got != want {
			t.Errorf("%d of %d processors", got, n)
		}
		c := Config{}
		if c.setDefaults(n); (c.Poll > 0) != (want > 0) {
			t.Errorf("on %d processors rings are watched for %v", n, c.Poll)
		}
	}
	if c := (Config{Poll: -1}); true {
		if c.setDefaults(64); c.Poll != 0 {
			t.Errorf("switched off, rings are watched for %v", c.Poll)
		}
	}
}
