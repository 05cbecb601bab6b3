package snapshot

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/kcopyd"
)

// throttled holds bios back while too many copies are in progress. (The kernel makes
// their submitters sleep.) Copies that end release them.
type throttled struct {
	count   atomic.Int32 // in the list; may be read without mu
	letting atomic.Int32 // calls of letGo not served yet

	mu    sync.Mutex
	bios  dm.CloneList // guarded by mu; of the snapshot
	holds []func()     // guarded by mu; to be called for bios of the origin
}

func (s *snapshot) over() bool { return s.inFlight.Over(int64(s.registry.threshold.Get())) }

// throttle holds a write to the snapshot back if it has to wait.
func (s *snapshot) throttle(c *dm.Clone) bool {
	return s.over() && s.hold(func(t *throttled) { t.bios.Push(c) })
}

// throttleOrigin is throttle for a write to the origin, which the group maps again.
func (s *snapshot) throttleOrigin(c *dm.Clone) bool {
	return s.over() && s.hold(func(t *throttled) {
		t.holds = append(t.holds, func() { s.group.again(c) })
	})
}

// hold adds a bio to the list if it still has to wait. Whoever ends a copy first
// updates the count and then looks at the list.
func (s *snapshot) hold(push func(*throttled)) bool {
	s.at(pointHold)
	t := &s.throttled
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count.Add(1)
	s.at(pointCounted)
	if !s.over() {
		t.count.Add(-1)
		return false
	}
	push(t)
	return true
}

// copyDone counts one copy less and releases bios while there is room.
func (s *snapshot) copyDone(sh *kcopyd.Shard) {
	s.inFlight.Give(sh, 1)
	if s.throttled.count.Load() > 0 && !s.over() {
		s.letGo()
	}
}

// letGo lets one caller at a time release bios, so that copies that end at once make
// a loop and not a recursion.
func (s *snapshot) letGo() {
	if s.throttled.letting.Add(1) != 1 {
		return
	}
	for n := int32(1); n != 0; n = s.throttled.letting.Add(-n) {
		s.letAllGo()
	}
}

func (s *snapshot) letAllGo() {
	for !s.over() {
		c, fn := s.throttled.pop()
		switch {
		case c != nil:
			s.mapAgain(c)
		case fn != nil:
			fn()
		default:
			return
		}
	}
}

func (t *throttled) pop() (c *dm.Clone, fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c = t.bios.Pop(); c == nil && len(t.holds) > 0 {
		fn, t.holds = t.holds[0], t.holds[1:]
	}
	if c != nil || fn != nil {
		t.count.Add(-1)
	}
	return c, fn
}

// mapAgain maps a bio that was held back.
func (s *snapshot) mapAgain(c *dm.Clone) { finishMap(c, s.Map(c)) }

// finishMap acts on an outcome as the core does after Map.
func finishMap(c *dm.Clone, out dm.Outcome) {
	switch out {
	case dm.Remapped:
		c.Issue()
	case dm.Kill:
		c.Complete(blk.IOErr)
	}
}
