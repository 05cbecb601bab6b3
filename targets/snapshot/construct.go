package snapshot

import (
	"math"
	"strings"
	"syscall"

	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

// copyMemory bounds the buffers of one snapshot's copies.
const copyMemory = 8 << 20

// spec is a table line, understood.
type spec struct {
	origin, cow         string
	persistent          bool
	overflow            bool
	chunk               uint64 // sectors; 0: as the store says
	zeroesCow, passdown bool
}

func parseSpec(args []string) (sp spec, err error) {
	if len(args) < 4 {
		return sp, dm.Errorf(syscall.EINVAL, "requires 4 or more arguments")
	}
	if err := sp.parseFeatures(dm.NewArgs(args[4:])); err != nil {
		return sp, err
	}
	sp.origin, sp.cow = args[0], args[1]
	return sp, nil
}

func (sp *spec) parseFeatures(a *dm.Args) error {
	if a.Len() == 0 {
		return nil
	}
	n, err := a.Group(0, 2, "Invalid number of feature arguments")
	if err != nil {
		return err
	}
	for range n {
		switch strings.ToLower(a.Next()) {
		case "discard_zeroes_cow":
			sp.zeroesCow = true
		case "discard_passdown_origin":
			sp.passdown = true
		default:
			return dm.Errorf(syscall.EINVAL, "Unrecognised feature requested")
		}
	}
	if sp.passdown && !sp.zeroesCow {
		return dm.Errorf(syscall.EINVAL, "discard_passdown_origin feature depends on discard_zeroes_cow")
	}
	return nil
}

// parseStore reads the words for the store: its kind with options, and the chunk
// size.
func (sp *spec) parseStore(kind, chunk string, devs ...*dm.Dev) error {
	switch k := strings.ToUpper(kind); {
	case strings.HasPrefix(k, "PO"):
		sp.persistent, sp.overflow = true, true
	case k == "P":
		sp.persistent = true
	case strings.HasPrefix(k, "P"):
		return dm.Errorf(syscall.EINVAL, "Unsupported persistent store option: %s", kind[1:])
	case !strings.HasPrefix(k, "N"):
		return dm.Errorf(syscall.EINVAL, "Exception store type is not P or N")
	}
	n, err := dm.ParseUint(chunk, math.MaxUint32)
	if err != nil {
		return dm.Errorf(syscall.EINVAL, "Invalid chunk size")
	}
	sp.chunk = n
	if n == 0 {
		return nil
	}
	return checkChunkSize(n, devs...)
}

func newSnapshot(t *dm.Target, args []string) (dm.Mapper, error) { return construct(t, args, false) }

func newMerging(t *dm.Target, args []string) (dm.Mapper, error) {
	s, err := construct(t, args, true)
	if err != nil {
		return nil, err
	}
	return mergeTarget{s}, nil
}

func construct(t *dm.Target, args []string, merges bool) (*snapshot, error) {
	sp, err := parseSpec(args)
	if err != nil {
		return nil, err
	}
	s := &snapshot{target: t, zeroesCow: sp.zeroesCow, passdown: sp.passdown, end: t.Begin + t.Len}
	if err := s.openDevices(&sp, merges); err != nil {
		return nil, err
	}
	if err := sp.parseStore(args[2], args[3], s.cow, s.origin); err != nil {
		return nil, dm.Errorf(syscall.EINVAL, "Couldn't create exception store (%v)", err)
	}
	s.build(t.Env(), &sp, merges)
	if err := s.enter(&sp); err != nil {
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

func (s *snapshot) openDevices(sp *spec, merges bool) (err error) {
	t := s.target
	// A discard that is passed down changes the origin.
	if s.origin, err = t.Open(sp.origin, merges || sp.passdown); err != nil {
		return dm.Errorf(dm.ErrnoOf(err), "Cannot get origin device")
	}
	// Origin writes make exceptions in the COW device even of a snapshot that
	// is not written to itself.
	s.cow, err = t.Open(sp.cow, true)
	if err != nil && !t.Writable() {
		s.cow, err = t.Open(sp.cow, false)
	}
	if err != nil {
		return dm.Errorf(dm.ErrnoOf(err), "Cannot get COW device")
	}
	if s.cow.Number == s.origin.Number {
		return dm.Errorf(syscall.EINVAL, "COW device cannot be the same as origin device")
	}
	return nil
}

// build makes everything that needs no other snapshot and no I/O.
func (s *snapshot) build(e env.Env, sp *spec, merges bool) {
	s.world = worldOf(s.target)
	s.overflow = sp.overflow
	s.originEnd = s.origin.Limits().Size
	s.originDev, s.cowDev = kcopyd.Open(s.origin.Device), kcopyd.Open(s.cow.Device)
	s.kc = kcopyd.New(e, kcopyd.Options{Name: "snapshot", Memory: copyMemory, Throttle: s.world.throttle})
	s.idle = e.NewWait()
	s.tally.Init()
	s.flags.Store(flagValid)
	if merges {
		s.merge = newMerge(s, e)
	}
	var st store = newTransient(s.cow, sp.chunk)
	if sp.persistent {
		st = newPersistent(e, s.cow, sp.chunk, s.cow.Write)
	}
	s.body.Store(&body{store: st, complete: newTable(0), ordered: st.ordered()})
	s.pending.init(s, 0)
	s.group = s.world.groupOf(s.origin.Number)
}

// enter joins the other snapshots of the origin and reads the exceptions, unless
// they will come in a handover.
func (s *snapshot) enter(sp *spec) error {
	waits, err := s.group.register(s)
	if err != nil || waits {
		return err
	}
	if err = s.readStore(sp); err == nil {
		s.group.reregister(s)
		return nil
	}
	s.group.unregister(s)
	return err
}

func (s *snapshot) readStore(sp *spec) error {
	st := s.body.Load().store
	if !sp.persistent && sp.chunk == 0 {
		return dm.Errorf(syscall.EINVAL, "Chunk size not set")
	}
	if s.merge != nil && st.merger() == nil {
		return dm.Errorf(syscall.EINVAL, "Snapshot exception store does not support snapshot-merge.")
	}
	valid, err := st.open()
	if err != nil {
		return dm.Errorf(dm.ErrnoOf(err), "Failed to read snapshot metadata (%v)", err)
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
	s.kc.Close()
	s.body.Load().store.close()
	s.group.leave()
}

// Close waits for the exceptions that are being made.
func (s *snapshot) Close() {
	g := s.group
	g.world.mu.Lock()
	if sh := g.sharing(s); sh.src == s && sh.dst != nil {
		sh.dst.set(0, flagValid) // its exceptions will never come
	}
	g.world.mu.Unlock()
	if s.merge != nil {
		s.merge.stop()
	}
	g.unregister(s)
	s.settle()
	s.release()
}
