package snapshot

import (
	"syscall"

	"udm/dm"
)

// Handover. A table that is loaded for the COW device of an active snapshot does not
// read the store. When it is resumed it takes over the store and the exceptions of
// the active snapshot, whose device must be suspended. (Kernel: snapshot_preresume,
// snapshot_resume.)

// Preresume refuses to resume the source of a handover, or the destination before the
// source is suspended.
func (s *snapshot) Preresume() error {
	sh := s.group.sharing(s)
	switch {
	case sh.src == nil || sh.dst == nil:
		return nil
	case sh.src == s:
		return dm.Errorf(syscall.EINVAL, "Unable to resume snapshot source until handover completes.")
	case !sh.src.target.Device().Stopped():
		return dm.Errorf(syscall.EINVAL, "Unable to perform snapshot handover until source is suspended.")
	}
	return nil
}

// Resume takes over the exceptions if there is a handover, and activates the snapshot
// while nothing is written to the origin.
func (s *snapshot) Resume() {
	if front := s.group.front(s.target.Device()); front != nil {
		front.Quiet(func() { s.activate(front) })
	} else {
		s.activate(nil)
	}
}

// activate does the work of Resume. If front is not nil, its device is suspended
// meanwhile.
func (s *snapshot) activate(front *dm.Device) {
	g := s.group
	merging := g.merging()
	restart := merging != nil && merging != s && merging.merge.stop()
	sh := g.sharing(s)
	if sh.src != nil && sh.dst != nil {
		sh.dst.takeOver(sh.src)
		g.sort(sh)
	}
	s.set(flagActive, 0)
	if merging != nil && merging.target.Device() == front {
		merging.target.PartialUnit = g.members.Load().boundary
	}
	if restart {
		merging.merge.start()
	}
}

// takeOver moves the exceptions from src to s. No bio of either is in flight, but
// copies that a merge requested from src may be.
func (s *snapshot) takeOver(src *snapshot) {
	src.space.hurry()
	src.settle()
	own := s.body.Load()
	b := src.body.Load()
	b.store.use(s.cow, s.space.park)
	own.store.use(src.cow, src.space.park)
	s.pending.init(s, min(s.cow.Limits().Size, s.originEnd)>>b.shift)
	s.body.Store(b)
	s.target.PartialUnit = b.mask + 1
	s.set(src.flags.Load()&(flagValid|flagOverflowed|flagUnflushed), flagValid|flagOverflowed|flagWaiting)
	switch m := b.store.merger(); {
	case s.merge != nil:
		s.merge.inherit(m.doubt())
	case src.merge != nil || src.has(flagDoubt):
		s.endMerge(b)
	}
	src.set(0, flagValid|flagUnflushed)
	src.body.Store(own)
}

// endMerge prepares the store of an unfinished merge to record exceptions again.
func (s *snapshot) endMerge(b *body) {
	free := uint64(0)
	b.complete.all(func(_, where uint64) { free = max(free, where+1) })
	if err := b.store.merger().endMerge(free); err != nil {
		s.set(flagDoubt, 0)
		s.target.Log().Error("writes to the last merged chunks fail: their exceptions cannot be recorded", "reason", err)
	}
}
