package thin

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

// TestFailEach fails each I/O of a scenario with every metadata operation, first alone,
// then with all I/O after it. Nothing hangs, the pool is in a fitting mode, and
// everything flushed is there when the disks work again. A short run takes every fifth
// I/O.
func TestFailEach(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 5
	}
	n := blktest.FailEvery(t, every, failScenario)
	t.Logf("%d I/Os", n)
}

func failScenario(t *testing.T, f *blktest.Failer) {
	w := newBusyPool(t, env.NewStepped())
	w.blocks, w.volBlocks = 24, 6
	w.wrap = func(_ string, d blk.Device) blk.Device { return f.Wrap(d) }
	if err := w.start(); err != nil {
		if !f.Failed() {
			t.Fatal(err)
		}
		_ = w.control.Close()
		return // a pool that was not made
	}
	s := &failing{busyPool: w, f: f}
	s.judge = s.check
	s.life()
	if err := w.control.Close(); err != nil {
		t.Fatal(err)
	}
	after := w.again(t, w.meta, w.data)
	for _, v := range w.vols {
		after.maybe[v.id] = after.maybe[v.id] || s.lost[v.id]
	}
	after.verify(f.Failed(), false)
}

// failing is a scenario in which I/O may fail.
type failing struct {
	*busyPool
	f     *blktest.Failer
	known bool         // that something went wrong
	lost  map[int]bool // volumes that may not exist
	judge func(what string, err error) bool
	retry func(err error) bool // whether a command is to be given again; nil: never
}

// check checks the pool after each step. After the first failure, unflushed data may
// be gone.
func (s *failing) check(what string, err error) bool {
	s.Helper()
	if err != nil && !s.f.Failed() {
		s.Fatalf("%s failed without a reason", what)
	}
	if s.f.Failed() && !s.known {
		s.known, s.idleDiscards = true, true
		for _, v := range s.vols {
			v.model.Crash()
		}
	}
	st := s.status()
	switch {
	case st[0] == "Fail" || st[0] == "Error":
	case st[4] == "rw" && st[7] == "-":
	case st[4] == "ro": // and needs_check, if the disk has taken it
	default:
		s.Fatalf("after %s: status %v", what, st)
	}
	return err == nil
}

func (s *failing) io(what string, st blk.Status) {
	s.Helper()
	s.judge(what, st.Err())
}

// command repeats a command until it need not be repeated.
func (s *failing) command(what string, fn func() error) bool {
	s.Helper()
	err := fn()
	for s.retry != nil && s.retry(err) {
		err = fn()
	}
	return s.judge(what, err)
}

func (s *failing) message(text string) {
	s.Helper()
	s.command(text, func() error { return s.busyPool.message("%s", text) })
}

// make is create. A volume whose creation failed may exist.
func (s *failing) make(id int, external bool, origin *vol) (v *vol) {
	s.command("create", func() (err error) {
		v, err = s.create(id, external, origin)
		return err
	})
	return v
}

func (s *failing) life() {
	s.lost = map[int]bool{}
	a := s.make(0, false, nil)
	b := s.make(1, true, nil)
	if a == nil || b == nil {
		return
	}
	for _, v := range []*vol{a, b} {
		s.io("provision", s.write(v, 0, 8, 0))
		s.io("overwrite", s.write(v, bs, bs, 0))
		s.io("second block", s.write(v, 2*bs+5, 20, blk.FUA))
		s.io("partial copy", s.write(v, 5*bs+5, 20, 0))
		s.io("flush", s.flush(v))
		s.io("read", s.read(v, 0, 6*bs-1))
	}
	c := s.make(2, false, a)
	if c != nil {
		s.io("break sharing", s.write(c, 4, 8, 0))
		s.io("break sharing by an overwrite", s.write(c, bs, bs, blk.FUA))
		s.io("discard", s.discard(c, 1, 2))
		s.io("flush", s.flush(c))
		s.io("read", s.read(c, 0, 6*bs))
	}
	s.io("break sharing", s.write(a, 4, 8, 0))
	s.io("discard", s.discard(a, 0, 6))
	s.message("reserve_metadata_snap")
	s.io("write", s.write(b, 3*bs, 8, 0))
	s.message("release_metadata_snap")
	s.message("set_transaction_id 0 5")
	if c != nil {
		s.lost[2] = true
		s.command("delete", s.remover(c))
	}
	if s.command("suspend", func() error { return s.pool.Suspend(ctx, false) }) {
		s.command("resume", func() error { return s.pool.Resume(ctx, false) })
	}
	s.io("write", s.write(a, 0, bs, 0))
	s.io("flush", s.flush(a))
	s.io("read", s.read(a, 0, 6*bs))
	s.io("read", s.read(b, 0, 6*bs))
}
