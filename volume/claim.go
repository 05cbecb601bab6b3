package volume

import (
	"context"
	"fmt"
	"slices"
	"syscall"
)

// claim is what an operation locks: objects that it changes, and objects and images,
// by name or path, that it only reads. All locks are taken at one moment, so an
// operation that waits holds none.
type claim struct{ objects, shared []string }

// lock is the holders of the lock of one name.
type lock struct {
	alone *operation   // exclusive; nil: nobody
	with  []*operation // shared
}

// acquire takes the locks that touches returns; touches is called again once they are
// held. It waits for short operations. If a lock is held by a long or stuck operation
// it fails with EBUSY; a stuck one is retried once first.
func (m *Manager) acquire(ctx context.Context, op *operation, touches func() (claim, error)) error {
	for {
		c, err := touches()
		if err != nil {
			return err
		}
		if err := m.lock(ctx, op, c); err != nil {
			return err
		}
		now, err := touches()
		if err == nil && now.within(c) {
			return nil
		}
		m.release(op)
		if err != nil {
			return err
		}
	}
}

func (c claim) within(o claim) bool {
	alone, shared := make(map[string]bool), make(map[string]bool)
	for _, name := range o.objects {
		alone[name] = true
	}
	for _, name := range o.shared {
		shared[name] = true
	}
	return !slices.ContainsFunc(c.objects, func(name string) bool { return !alone[name] }) &&
		!slices.ContainsFunc(c.shared, func(name string) bool { return !alone[name] && !shared[name] })
}

func (m *Manager) lock(ctx context.Context, op *operation, c claim) error {
	op.Objects, op.Shared = c.objects, c.shared
	stop := context.AfterFunc(ctx, m.changed.Wake)
	defer stop()
	tried := make(map[*operation]bool)
	for {
		var other *operation
		m.changed.Until(func() bool { other = m.tryLock(op); return other == nil || other.stuck() || ctx.Err() != nil })
		switch {
		case other == nil:
			return nil
		case ctx.Err() != nil:
			return errInterrupted
		case tried[other] || !m.takeTurn(other):
			return m.inTheWay(other)
		}
		tried[other] = true
		_ = m.advance(ctx, other) // inTheWay reports the error
		m.endTurn(other)
	}
}

// stuck reports whether an operation will not end soon. It takes Manager.mu; what it
// reads is only a hint.
func (op *operation) stuck() bool {
	op.m.mu.Lock()
	defer op.m.mu.Unlock()
	return !op.over && (op.long || op.waits)
}

// inTheWay is the error for a caller that needs what another operation holds.
func (m *Manager) inTheWay(op *operation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	why := ""
	if op.failure != nil {
		why = ": " + op.failure.Error()
	}
	return refuse(syscall.EBUSY, "%s is busy: %s is in progress%s; wait for it", op.about(), op.Kind, why)
}

// tryLock takes all locks of op, or returns an operation that holds one of them.
func (m *Manager) tryLock(op *operation) (other *operation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range op.Objects {
		if l := m.locks[name]; l != nil {
			if l.alone != nil {
				return l.alone
			}
			return l.with[0]
		}
	}
	for _, name := range op.Shared {
		if l := m.locks[name]; l != nil && l.alone != nil {
			return l.alone
		}
	}
	m.takeLocked(op)
	return nil
}

func (m *Manager) takeLocked(op *operation) {
	for _, name := range op.Objects {
		m.locks[name] = &lock{alone: op}
	}
	for _, name := range op.Shared {
		l := m.locks[name]
		switch {
		case l == nil:
			m.locks[name] = &lock{with: []*operation{op}}
		case l.alone != op && !slices.Contains(l.with, op):
			l.with = append(l.with, op)
		}
	}
}

func (m *Manager) release(op *operation) {
	m.mu.Lock()
	m.releaseLocked(op)
	m.mu.Unlock()
	m.changed.Wake()
}

func (m *Manager) releaseLocked(op *operation) {
	for _, name := range op.Objects {
		if l := m.locks[name]; l != nil && l.alone == op {
			delete(m.locks, name)
		}
	}
	for _, name := range op.Shared {
		if l := m.locks[name]; l != nil && l.alone == nil {
			l.with = slices.DeleteFunc(l.with, func(o *operation) bool { return o == op })
			if len(l.with) == 0 {
				delete(m.locks, name)
			}
		}
	}
}

// errInterrupted is the error of an operation that was undone because its client went
// away.
var errInterrupted = &Refusal{syscall.EINTR, "interrupted; nothing was changed"}

// refuse returns a Refusal with an errno and a reason.
func refuse(errno syscall.Errno, format string, args ...any) error {
	return &Refusal{Errno: errno, Reason: fmt.Sprintf(format, args...)}
}

// Refusal is the error of an operation that was refused and has changed nothing.
type Refusal struct {
	Errno  syscall.Errno
	Reason string // one line: what is wrong and what to do
}

func (r *Refusal) Error() string { return r.Reason }
func (r *Refusal) Unwrap() error { return r.Errno }
