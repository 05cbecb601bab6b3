package dm

import (
	"context"
	"syscall"

	"udm/blk"
)

// Suspend and resume (the kernel's __dm_suspend, __dm_resume, dm_swap_table).
//
//	          suspend: presuspend hooks, keep bios out, drain, postsuspend hooks
//	running ──────────────────────────────────────────────────────────► suspended
//	   ▲                                                                  │  │ swap
//	   └──────────────────────────────────────────────────────────────────┘ ◄┘
//	          resume: preresume hooks, resume hooks, let deferred bios go
//
// Targets can suspend a device as well, any number of times, independently of the user:
// these are internal suspends. I/O flows only if neither kind is in force.

// state says which suspends are in force.
type state struct {
	blocked    bool // bios are deferred
	suspended  bool // by the user
	internally int  // number of internal suspends
	dead       bool // destroyed: bios fail
}

func (s state) runs() bool { return !s.blocked && !s.dead }

// suspend is the user's suspend. If ctx is cancelled, it stops waiting for I/O and fails.
func (d *Device) suspend(ctx context.Context, noflush bool) error {
	if err := d.lockSettled(ctx); err != nil {
		return err
	}
	defer d.ctl.Unlock()
	if d.Suspended() {
		return Errorf(syscall.EINVAL, "already suspended")
	}
	return d.quiesce(ctx, noflush, func(s *state) { s.suspended = true })
}

// lockSettled takes ctl when no internal suspend is in force: the user's suspend and
// resume wait for its end.
func (d *Device) lockSettled(ctx context.Context) error {
	stop := context.AfterFunc(ctx, d.drained.Wake)
	defer stop()
	for {
		d.ctl.Lock()
		switch s := d.stateNow(); {
		case s.dead:
			d.ctl.Unlock()
			return errRemoved
		case s.internally == 0:
			return nil
		}
		d.ctl.Unlock()
		d.drained.Until(func() bool { return !d.internallySuspended() || ctx.Err() != nil })
		if ctx.Err() != nil {
			return Errorf(syscall.EINTR, "interrupted")
		}
	}
}

// quiesce runs the suspend hooks and the drain with ctl held, and marks the state.
func (d *Device) quiesce(ctx context.Context, noflush bool, mark func(*state)) error {
	d.setNoflushing(noflush)
	d.table().forEach(func(h *hooks) { h.Presuspend() })
	if err := d.drain(ctx); err != nil {
		d.setNoflushing(false)
		d.unblock()
		d.table().forEach(func(h *hooks) { h.PresuspendUndo() })
		return err
	}
	d.mu.Lock()
	mark(&d.state)
	d.mu.Unlock()
	d.setNoflushing(false)
	d.table().forEach(func(h *hooks) { h.Postsuspend() })
	return nil
}

func (d *Device) setNoflushing(on bool) {
	d.mu.Lock()
	d.noflushing.Store(on)
	d.mu.Unlock()
}

// drain keeps bios out and waits until none is in flight.
func (d *Device) drain(ctx context.Context) error {
	d.mu.Lock()
	d.state.blocked = true
	d.fast.Store(nil)
	d.mu.Unlock()
	d.draining.Add(1)
	defer d.draining.Add(-1)
	d.reach(keptOut)
	stop := context.AfterFunc(ctx, d.drained.Wake)
	defer stop()
	d.drained.Until(func() bool { return d.idleNow() || ctx.Err() != nil })
	if !d.idleNow() {
		return Errorf(syscall.EINTR, "interrupted")
	}
	return nil
}

// unblock lets bios in again. Those that waited go in order; a bio that is submitted
// meanwhile waits only for those that it overlaps with.
func (d *Device) unblock() {
	d.mu.Lock()
	d.state.blocked = false
	if d.waiting.empty() && d.barrier.orig == nil && d.flushed.Empty() {
		d.fast.Store(d.live)
	}
	d.mu.Unlock()
	d.queue.Queue(d.send)
}

// resume is the user's resume of a suspended device with a table.
func (d *Device) resume(ctx context.Context) error {
	if err := d.lockSettled(ctx); err != nil {
		return err
	}
	defer d.ctl.Unlock()
	t := d.table()
	if !d.Suspended() || t == nil {
		return Errorf(syscall.EINVAL, "not suspended, or no table")
	}
	if err := t.preresume(); err != nil {
		return err
	}
	t.forEach(func(h *hooks) { h.Resume() })
	d.mu.Lock()
	d.state.suspended = false
	d.mu.Unlock()
	d.unblock()
	return nil
}

func (t *Table) preresume() error {
	for _, ti := range t.targets {
		if err := ti.core.hooks.Preresume(); err != nil {
			return err
		}
	}
	return nil
}

// swap makes t the live table of a suspended device and returns the old one.
// A table without data devices keeps the limits that were in force.
func (d *Device) swap(t *Table) (*Table, error) {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	switch s := d.stateNow(); {
	case s.dead:
		return nil, errRemoved
	case !s.suspended:
		return nil, Errorf(syscall.EINVAL, "not suspended")
	}
	return d.install(t)
}

// install makes t the live table while nothing flows.
func (d *Device) install(t *Table) (*Table, error) {
	l, err := t.stack()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.live
	d.live = t
	d.limits.Store(&l)
	d.noDiscard.Store(false)
	d.noZeroes.Store(false)
	return old, nil
}

// reinstall makes a table live again that was live before, or none.
func (d *Device) reinstall(t *Table) (old *Table) {
	if t != nil {
		if old, err := d.install(t); err == nil {
			return old
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old, d.live = d.live, t
	return old
}

// InternalSuspend suspends the device on behalf of a target, without flushing and
// independently of the user's suspends. It waits for the I/O in flight. Each call is
// undone by one InternalResume.
func (d *Device) InternalSuspend() {
	// This context is never cancelled, so there is no error.
	_ = d.internalSuspend(context.Background())
}

// internalSuspend is InternalSuspend with a context. If ctx is cancelled, it fails and
// changes nothing.
func (d *Device) internalSuspend(ctx context.Context) error {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	d.mu.Lock()
	d.state.internally++
	first := d.state.internally == 1 && !d.state.suspended
	if first && d.live == nil {
		d.state.blocked = true
	}
	d.mu.Unlock()
	if !first || d.table() == nil {
		return nil
	}
	err := d.quiesce(ctx, true, func(*state) {})
	if err != nil {
		d.mu.Lock()
		d.state.internally--
		d.mu.Unlock()
		d.drained.Wake()
	}
	return err
}

// InternalResume undoes one InternalSuspend. The targets' resume hooks do not run.
func (d *Device) InternalResume() {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	d.mu.Lock()
	d.state.internally--
	last := d.state.internally == 0 && !d.state.suspended
	d.mu.Unlock()
	if last && !d.stateNow().dead {
		d.unblock()
	}
	d.drained.Wake()
}

// Quiet runs fn while no I/O is in flight and new I/O waits. No hooks run. It is for
// changes that need a moment without I/O (the kernel's dm_internal_suspend_fast).
func (d *Device) Quiet(fn func()) {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	if d.Stopped() || d.table() == nil {
		fn()
		return
	}
	_ = d.drain(context.Background())
	fn()
	d.unblock()
}

// Suspended reports whether the device is suspended by the user.
func (d *Device) Suspended() bool { return d.stateNow().suspended }

// Stopped reports whether a suspend is in force, the user's or an internal one.
func (d *Device) Stopped() bool { return d.Suspended() || d.internallySuspended() }

func (d *Device) internallySuspended() bool { return d.stateNow().internally > 0 }

func (d *Device) stateNow() state {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// table returns the live table, or nil.
func (d *Device) table() *Table {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live
}

// destroy ends a device that nobody has open. Bios that wait fail.
func (d *Device) destroy() {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	if !d.Suspended() && d.table() != nil {
		d.table().forEach(func(h *hooks) { h.Presuspend() })
		_ = d.drain(context.Background())
		d.table().forEach(func(h *hooks) { h.Postsuspend() })
	}
	d.mu.Lock()
	t, left, orig := d.live, d.waiting, d.barrier.orig
	d.waiting = waiting{}
	d.live, d.state.dead, d.barrier.orig = nil, true, nil
	d.fast.Store(nil)
	d.mu.Unlock()
	for b := left.pop(); b != nil; b = left.pop() {
		b.Complete(blk.IOErr)
	}
	if orig != nil {
		orig.Complete(blk.IOErr)
	}
	if t != nil {
		t.close()
	}
	d.queue.Close()
}
