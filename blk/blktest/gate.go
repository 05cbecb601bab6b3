package blktest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"udm/blk"
	"udm/env"
)

// Gate is a device that holds every request until the test releases it, so that a
// test can produce any order of submissions and completions. A request reaches
// the device below when it is released, on the stack of the caller of Release,
// which also runs its End if that device completes inline.
//
// A gate works under env.Sim as well as among goroutines.
//
// Lock order: mu is a leaf; nothing is called under it.
type Gate struct {
	lower blk.Device
	wait  env.Wait

	mu    sync.Mutex
	open  bool       // guarded by mu; let everything pass
	reqs  []*request // guarded by mu; every request since Forget
	first int        // guarded by mu; the index of reqs[0]
	ended []int      // guarded by mu; indices in the order of completion
}

// Request describes one submission.
type Request struct {
	Index   int // 0 for the first submission, 1 for the next
	Op      blk.Op
	Flags   blk.Flags
	Sector  uint64
	Sectors uint64
}

func (r Request) String() string {
	b := blk.Bio{Op: r.Op, Flags: r.Flags, Sector: r.Sector, Sectors: r.Sectors}
	return fmt.Sprintf("#%d %v", r.Index, &b)
}

type state uint8

const (
	held state = iota
	released
	done
)

type request struct {
	Request
	bio   *blk.Bio
	state state // guarded by Gate.mu
}

// NewGate returns a shut gate before lower, which it owns.
func NewGate(e env.Env, lower blk.Device) *Gate {
	return &Gate{lower: lower, wait: e.NewWait()}
}

// Submit records b and holds it; through an open gate it goes on at once.
func (g *Gate) Submit(b *blk.Bio) {
	g.mu.Lock()
	r := &request{bio: b, Request: Request{
		Index: g.first + len(g.reqs), Op: b.Op, Flags: b.Flags, Sector: b.Sector, Sectors: b.Sectors,
	}}
	g.reqs = append(g.reqs, r)
	open := g.open
	if open {
		r.state = released
	}
	g.mu.Unlock()
	g.wait.Wake()
	if open {
		g.pass(r)
	}
}

// pass hands a released request to the device below.
func (g *Gate) pass(r *request) {
	c := &blk.Bio{End: func(c *blk.Bio) { g.finish(r, c.Status()) }}
	c.CloneFrom(r.bio)
	g.lower.Submit(c)
}

func (g *Gate) finish(r *request, st blk.Status) {
	g.mu.Lock()
	r.state = done
	g.ended = append(g.ended, r.Index)
	b := r.bio
	r.bio = nil
	g.mu.Unlock()
	b.Complete(st)
	g.wait.Wake()
}

// take marks a held request as released.
func (g *Gate) take(i int) *request {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := i - g.first; n < 0 || n >= len(g.reqs) || g.reqs[n].state != held {
		panic(fmt.Sprintf("blktest: request %d is not held at the gate; held: %v", i, g.heldLocked()))
	}
	r := g.reqs[i-g.first]
	r.state = released
	return r
}

// Release sends held request i to the device below.
func (g *Gate) Release(i int) { g.pass(g.take(i)) }

// Fail ends held request i with st; the device below never sees it. With blk.OK
// it succeeds without effect.
func (g *Gate) Fail(i int, st blk.Status) { g.finish(g.take(i), st) }

// ReleaseAll releases the requests held now, oldest first, but not those
// submitted meanwhile, and returns their number.
func (g *Gate) ReleaseAll() int {
	rs := g.Held()
	for _, r := range rs {
		g.Release(r.Index)
	}
	return len(rs)
}

// Open releases the held requests and lets everything pass until Shut.
func (g *Gate) Open() {
	g.mu.Lock()
	g.open = true
	g.mu.Unlock()
	g.ReleaseAll()
}

// Shut holds requests submitted from now on.
func (g *Gate) Shut() {
	g.mu.Lock()
	g.open = false
	g.mu.Unlock()
}

func (g *Gate) heldLocked() (rs []Request) {
	for _, r := range g.reqs {
		if r.state == held {
			rs = append(rs, r.Request)
		}
	}
	return rs
}

// Held lists the requests that are held, oldest first.
func (g *Gate) Held() []Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.heldLocked()
}

// Find returns the oldest held request of an op that touches sector; for a
// flush, whose sector is ignored, the oldest held flush.
func (g *Gate) Find(op blk.Op, sector uint64) (Request, bool) {
	rs := g.Held()
	i := slices.IndexFunc(rs, func(r Request) bool {
		return r.Op == op && (op == blk.Flush || r.Sector <= sector && sector < r.Sector+r.Sectors)
	})
	if i < 0 {
		return Request{}, false
	}
	return rs[i], true
}

// Submitted lists all requests since Forget in the order of submission.
func (g *Gate) Submitted() []Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	rs := make([]Request, len(g.reqs))
	for i, r := range g.reqs {
		rs[i] = r.Request
	}
	return rs
}

// Ended lists the indices of the requests that are complete, in the order of
// completion.
func (g *Gate) Ended() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.ended)
}

// Trace is the submissions, one per line without index: for golden tests.
func (g *Gate) Trace() string {
	var b strings.Builder
	for _, r := range g.Submitted() {
		_, s, _ := strings.Cut(r.String(), " ")
		b.WriteString(s + "\n")
	}
	return b.String()
}

// Forget drops the record of what has ended. Indices go on counting.
func (g *Gate) Forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for n < len(g.reqs) && g.reqs[n].state == done {
		n++
	}
	g.reqs, g.first, g.ended = slices.Delete(g.reqs, 0, n), g.first+n, nil
}

// WaitHeld waits until at least n requests are held and returns them.
func (g *Gate) WaitHeld(n int) []Request {
	g.wait.Until(func() bool { return len(g.Held()) >= n })
	return g.Held()
}

// Limits are those of the device below.
func (g *Gate) Limits() blk.Limits { return g.lower.Limits() }

func (g *Gate) String() string { return "gate:" + g.lower.String() }

// Extents is that of the device below, which held requests have not reached yet.
func (g *Gate) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(g.lower, sector, sectors), nil
}

// Close closes the device below. It is an error to close while requests are held:
// a device's owner waits for its bios first.
func (g *Gate) Close() error {
	if rs := g.Held(); len(rs) > 0 {
		return fmt.Errorf("blktest: gate closed while it holds %v", rs)
	}
	return g.lower.Close()
}
