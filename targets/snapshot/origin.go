package snapshot

import (
	"slices"

	"udm/blk"
	"udm/dm"
)

// origin is a constructed target "snapshot-origin".
type origin struct {
	target *dm.Target
	dev    *dm.Dev
	group  *group
}

func newOrigin(t *dm.Target, args []string) (dm.Mapper, error) {
	l, err := ParseOriginLine(args)
	if err != nil {
		return nil, err
	}
	d, err := t.Open(l.Origin, t.Writable())
	if err != nil {
		return nil, dm.Errorf(dm.ErrnoOf(err), "Cannot get target device")
	}
	t.NumFlush, t.PartialUnit = 1, 1
	return &origin{t, d, registryOf(t).groupOf(d.Number)}, nil
}

func (o *origin) Close() { o.group.leave() }

// Map passes reads on. A write is passed on once every snapshot has copied what it
// overwrites. Addresses are those of the device.
func (o *origin) Map(c *dm.Clone) dm.Outcome {
	c.Dev = o.dev.Device
	if c.Op != blk.Write {
		return dm.Remapped
	}
	if n := o.group.room(c.Sector); c.Sectors > n {
		c.Accept(n)
	}
	return o.group.write(c)
}

// room returns how many sectors from sector on lie within one chunk of every
// snapshot.
func (g *group) room(sector uint64) uint64 {
	b := g.members.Load().boundary
	if b == 0 {
		return blk.NoLimit
	}
	return b - sector&(b-1)
}

// write maps an origin write that lies within one chunk of every snapshot. c.Dev is
// the origin.
func (g *group) write(c *dm.Clone) dm.Outcome {
	return g.mapWrite(&originWrite{sector: c.Sector, clone: c})
}

func (g *group) mapWrite(w *originWrite) dm.Outcome {
	if g.reallocate(w) {
		return dm.Submitted
	}
	return dm.Remapped
}

// again maps a write that was held back.
func (g *group) again(c *dm.Clone) {
	finishMap(c, g.mapWrite(&originWrite{sector: c.Sector, clone: c, held: true}))
}

// originWrite is a write to the origin that visits all snapshots. It waits for the
// first pending exception that it meets, and starts over when that is done. So it
// waits for all of them one at a time, while all are copied in parallel.
type originWrite struct {
	sector  uint64
	clone   *dm.Clone // nil for a merge
	wake    func()    // how a merge is told to continue
	held    bool      // it was held back, and goes before writes that came later
	waits   bool      // clone or wake is queued somewhere, or ended
	toStart *pending  // the exception that it waits for, if its copy must be started
	startIn *body
}

// reallocate creates the exceptions that an origin write needs. It reports whether
// the write has to wait; it is then mapped again later.
func (g *group) reallocate(w *originWrite) bool {
	for _, s := range g.members.Load().snaps {
		// The exceptions of a merging snapshot are going away.
		if s.merge != nil || w.sector >= s.end {
			continue
		}
		if s.reallocate(w) {
			break
		}
	}
	// Start the copy that the write waits for last, to give the others a head start.
	if w.toStart != nil {
		w.toStart.startCopy(w.startIn)
	}
	return w.waits
}

// reallocate creates the exception that s needs. It returns true if the write waits
// for something other than exceptions: then the other snapshots need not be visited
// now.
func (s *snapshot) reallocate(w *originWrite) (stop bool) {
	b := s.body.Load()
	chunk := w.sector >> b.shift
	for {
		f := s.flags.Load()
		if w.held && f&flagUnflushed == 0 {
			f &^= flagFlushing
		}
		switch {
		case f&flagActive == 0 || f&(flagValid|flagDropping|flagUnflushed|flagFlushing) == 0:
			return false
		case f&(flagDropping|flagUnflushed|flagFlushing) != 0:
			return s.waitForStore(w)
		}
		// The order matters: the exception is added before its pending one is
		// removed, which is after the last read of the origin.
		if _, ok := b.complete.lookup(chunk); ok && s.pending.slot(chunk).head.Load() == nil {
			return f&flagDoubt != 0 && b.inDoubt(chunk, 1) && s.cannotProtect(w)
		}
		if !w.waits && w.clone != nil && (refused(w.clone) || s.noSpace(w.clone) || s.throttleOrigin(w.clone)) {
			w.waits = true
			return true
		}
		s.at(pointAllocate)
		pe, sl, found := s.lockPending(b, chunk, flagValid|flagActive)
		if pe != nil {
			s.joinOrigin(w, b, pe, sl)
			return false
		}
		if found {
			return false
		}
		if s.flags.Load()&(flagValid|flagActive) == flagValid|flagActive {
			// The store is full. Unlike for the snapshot's own writes, overflow
			// support does not help.
			s.invalidate("its store is full")
		}
	}
}

// cannotProtect fails a write to a chunk whose exception the store may have lost. A
// merge fails at the first attempt.
func (s *snapshot) cannotProtect(w *originWrite) (stop bool) {
	switch {
	case w.clone == nil:
		s.invalidate("its store could not be written")
		return false
	case w.waits:
		return false
	}
	w.waits = true
	w.clone.Complete(blk.IOErr)
	return true
}

// waitForStore queues the write until the store is marked invalid, or flushed.
func (s *snapshot) waitForStore(w *originWrite) (stop bool) {
	s.flushRead()
	if w.waits {
		return false // it is mapped again anyway
	}
	w.waits = true
	c, wake := w.clone, w.wake
	if c != nil && refused(c) {
		return true
	}
	s.whenDurable(func() {
		if c != nil {
			s.group.again(c)
		} else {
			wake()
		}
	})
	return true
}

// joinOrigin queues the write in pe unless it waits already. It starts the copy of pe
// now or, if the write waits for it, at the end. It unlocks the slot.
func (s *snapshot) joinOrigin(w *originWrite, b *body, pe *pending, sl *slot) {
	first, later := !pe.started, !w.waits
	pe.started = true
	if !w.waits {
		w.waits = true
		if w.clone != nil {
			pe.origins.Push(w.clone)
		} else {
			pe.merges = append(pe.merges, w.wake)
		}
	}
	sl.mu.Unlock()
	switch {
	case first && later:
		w.toStart, w.startIn = pe, b
	case first:
		pe.startCopy(b)
	}
}

// Resume registers the target as the one through which the origin is written.
func (o *origin) Resume() {
	w := o.group.registry
	w.mu.Lock()
	o.group.origins = append(o.group.origins, o)
	w.mu.Unlock()
}

// Postsuspend undoes Resume.
func (o *origin) Postsuspend() {
	w := o.group.registry
	w.mu.Lock()
	o.group.origins = slices.DeleteFunc(o.group.origins, func(x *origin) bool { return x == o })
	w.mu.Unlock()
}

func (o *origin) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return (&OriginLine{o.dev.Name()}).String()
	}
	return ""
}

func (o *origin) Areas() []dm.Area { return []dm.Area{{Dev: o.dev, Len: o.target.Len}} }
