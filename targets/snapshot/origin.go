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
	return &origin{t, d, worldOf(t).groupOf(d.Number)}, nil
}

func (o *origin) Close() { o.group.leave() }

// Map sends reads on; a write goes on once every snapshot has what it
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

// room is how many sectors from sector on lie in one chunk of every snapshot.
func (g *group) room(sector uint64) uint64 {
	b := g.members.Load().boundary
	if b == 0 {
		return blk.NoLimit
	}
	return b - sector&(b-1)
}

// write maps a write to the origin that lies within one chunk of every snapshot.
// c.Dev is the origin.
func (g *group) write(c *dm.Clone) dm.Outcome {
	w := originWrite{sector: c.Sector, clone: c}
	if g.reallocate(&w) {
		return dm.Submitted
	}
	return dm.Remapped
}

// again maps a write that had been held back.
func (g *group) again(c *dm.Clone) { finishMap(c, g.write(c)) }

// originWrite is a write to the origin on its way through the snapshots. It
// waits for the first pending exception that it meets, and comes back when that
// is done; so it waits for all of them, one at a time, while all are copied side
// by side.
type originWrite struct {
	sector  uint64
	clone   *dm.Clone // nil for a merge
	wake    func()    // the merge's way to come back
	waits   bool      // clone or wake has been left somewhere, or ended
	toStart *pending  // the exception that it waits for, if it is to be started
	startIn *body
}

// reallocate makes the exceptions that a write to the origin needs and reports
// whether it has to wait: then it will come back by itself.
func (g *group) reallocate(w *originWrite) bool {
	for _, s := range g.members.Load().snaps {
		// A merging snapshot is as good as deleted.
		if s.merge != nil || w.sector >= s.end {
			continue
		}
		if s.reallocate(w) {
			break
		}
	}
	// The exception that the write waits for is started last, to give the
	// others a head start.
	if w.toStart != nil {
		w.toStart.startCopy(w.startIn)
	}
	return w.waits
}

// reallocate makes the exception that s needs. It reports true when the write
// waits for something else than exceptions, so that there is no use in going on.
func (s *snapshot) reallocate(w *originWrite) (stop bool) {
	b := s.body.Load()
	chunk := w.sector >> b.shift
	for {
		f := s.flags.Load()
		switch {
		case f&flagActive == 0 || f&(flagValid|flagDropping) == 0:
			return false
		case f&flagDropping != 0:
			return s.waitForDrop(w)
		}
		// In this order: an exception is there before its pending one goes, and
		// that goes after the last read of the origin.
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
			// Full: unlike for the snapshot's own writes, overflow support is
			// of no use.
			s.invalidate("its store is full")
		}
	}
}

// cannotProtect fails a write to a chunk whose exception the store may have lost.
// A merge does not ask twice.
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

// waitForDrop lets the write wait until the store knows that it is invalid.
func (s *snapshot) waitForDrop(w *originWrite) (stop bool) {
	if w.waits {
		return false // it comes back anyway
	}
	w.waits = true
	c, wake := w.clone, w.wake
	if c != nil && refused(c) {
		return true
	}
	s.afterDrop(func() {
		if c != nil {
			s.group.again(c)
		} else {
			wake()
		}
	})
	return true
}

// joinOrigin leaves the write with pe if it is not waiting yet, and starts pe, or
// leaves that to the end. It unlocks the slot.
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

// Resume makes the target known as the way to the origin.
func (o *origin) Resume() {
	w := o.group.world
	w.mu.Lock()
	o.group.origins = append(o.group.origins, o)
	w.mu.Unlock()
}

// Postsuspend undoes Resume.
func (o *origin) Postsuspend() {
	w := o.group.world
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
