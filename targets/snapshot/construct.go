package snapshot

import (
	"syscall"

	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

// copyMemory bounds the buffers of one snapshot's copies.
const copyMemory = 8 << 20

func newSnapshot(t *dm.Target, args []string) (dm.Mapper, error) { return construct(t, args, false) }

func newMerging(t *dm.Target, args []string) (dm.Mapper, error) {
	s, err := construct(t, args, true)
	if err != nil {
		return nil, err
	}
	return mergeTarget{s}, nil
}

func construct(t *dm.Target, args []string, merges bool) (*snapshot, error) {
	l, wrong := ParseLine(args)
	if l == nil {
		return nil, wrong
	}
	s := &snapshot{target: t, zeroesCow: l.ZeroesCOW, passdown: l.PassdownOrigin, end: t.Begin + t.Len}
	if err := s.openDevices(l, merges); err != nil {
		return nil, err
	}
	if wrong == nil && l.Chunk != 0 {
		wrong = storeError(checkChunkSize(l.Chunk, s.cow, s.origin))
	}
	if wrong != nil {
		return nil, wrong
	}
	s.build(t.Env(), l, merges)
	if err := s.enter(l); err != nil {
		s.release()
		return nil, err
	}
	t.NumFlush = 1
	if merges {
		t.NumFlush = 2
	}
	if s.zeroesCow {
		t.NumDiscard = 1
	}
	if s.passdown {
		t.NumDiscard = 2
	}
	return s, nil
}

func (s *snapshot) openDevices(l *Line, merges bool) (err error) {
	t := s.target
	// A discard that is passed down changes the origin.
	if s.origin, err = t.Open(l.Origin, merges || l.PassdownOrigin); err != nil {
		return dm.Errorf(dm.ErrnoOf(err), "Cannot get origin device")
	}
	// Even a read-only snapshot gets exceptions: origin writes create them in the COW
	// device.
	s.cow, err = t.Open(l.COW, true)
	if err != nil && !t.Writable() {
		s.cow, err = t.Open(l.COW, false)
	}
	if err != nil {
		return dm.Errorf(dm.ErrnoOf(err), "Cannot get COW device")
	}
	if s.cow.Number == s.origin.Number {
		return dm.Errorf(syscall.EINVAL, "COW device cannot be the same as origin device")
	}
	return nil
}

// build sets up everything that needs neither other snapshots nor I/O.
func (s *snapshot) build(e env.Env, l *Line, merges bool) {
	s.registry = registryOf(s.target)
	s.overflow = l.Overflow
	s.originEnd = s.origin.Limits().Size
	s.originDev, s.cowDev = kcopyd.Open(s.origin.Device), kcopyd.Open(s.cow.Device)
	s.kc = kcopyd.New(e, kcopyd.Options{Name: "snapshot", Memory: copyMemory, Throttle: s.registry.throttle})
	s.idle = e.NewWait()
	s.inFlight.Init()
	s.flags.Store(flagValid)
	s.space.init(s, e)
	if merges {
		s.merge = newMerge(s, e)
	}
	var st store = newTransient(s.cow, l.Chunk)
	if l.Persistent {
		st = newPersistent(e, s.cow, l.Chunk, s.cow.Write)
	}
	st.use(s.cow, s.space.park)
	s.body.Store(&body{store: st, complete: newTable(0)})
	s.pending.init(s, 0)
	s.group = s.registry.groupOf(s.origin.Number)
}

// enter adds s to the snapshots of its origin and reads the exceptions, unless a
// handover will bring them.
func (s *snapshot) enter(l *Line) error {
	waits, err := s.group.register(s)
	if err != nil || waits {
		return err
	}
	if err = s.readStore(l); err == nil {
		s.group.reregister(s)
		return nil
	}
	s.group.unregister(s)
	return err
}

func (s *snapshot) readStore(l *Line) error {
	st := s.body.Load().store
	if !l.Persistent && l.Chunk == 0 {
		return dm.Errorf(syscall.EINVAL, "Chunk size not set")
	}
	if s.merge != nil && st.merger() == nil {
		return dm.Errorf(syscall.EINVAL, "Snapshot exception store does not support snapshot-merge.")
	}
	valid, err := st.open()
	if err != nil {
		return dm.Errorf(dm.ErrnoOf(err), "Failed to read snapshot metadata (%v)", err)
	}
	if st.unflushed() {
		s.set(flagUnflushed, 0)
	}
	chunk := st.chunkSize()
	chunks := min(s.cow.Limits().Size, s.originEnd) / chunk
	b := newBody(st, newTable(chunks))
	s.pending.init(s, chunks)
	s.target.PartialUnit = chunk
	if valid {
		err = st.read(func(old, new uint64) error {
			if !b.complete.insert(old, new) {
				return dm.Errorf(syscall.EINVAL, "chunk %d has two exceptions", old)
			}
			return nil
		})
	} else {
		s.set(0, flagValid)
		s.target.Log().Warn("snapshot is invalid: its store says so")
	}
	s.body.Store(b)
	if err != nil {
		return dm.Errorf(dm.ErrnoOf(err), "Failed to read snapshot metadata (%v)", err)
	}
	return nil
}

// release undoes build.
func (s *snapshot) release() {
	if s.merge != nil {
		s.merge.queue.Close()
	}
	s.space.queue.Close()
	s.kc.Close()
	s.body.Load().store.close()
	s.group.leave()
}

// Close waits for pending exceptions.
func (s *snapshot) Close() {
	g := s.group
	g.registry.mu.Lock()
	if sh := g.sharingLocked(s); sh.src == s && sh.dst != nil {
		sh.dst.set(0, flagValid) // the handover it waits for will not happen
	}
	g.registry.mu.Unlock()
	if s.merge != nil {
		s.merge.stop()
	}
	g.unregister(s)
	s.set(flagClosing, 0)
	s.space.stop()
	s.settle()
	s.release()
}
