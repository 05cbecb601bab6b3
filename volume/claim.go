package volume

import (
	"context"
	"fmt"
	"slices"
	"syscall"
)

// claim is what an operation locks: objects that it changes, and what it only
// looks at or stands on, such as images, by name or path. Who waits holds
// nothing: all is locked at one moment.
type claim struct{ objects, shared []string }

// lock is what is held of a name.
type lock struct {
	alone *operation   // nil: nobody
	with  []*operation // beside each other
}

// acquire locks for op what touches says, which is asked again under the locks.
// It waits for operations that are short. What takes long or is stuck is refused,
// the latter after it was tried once more. EBUSY: such a one is in the way.
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
	held := func(s []string) func(string) bool {
		return func(name string) bool { return !slices.Contains(s, name) }
	}
	both := slices.Concat(o.objects, o.shared)
	if len(c.objects) > 16 { // a batch is of new names, which touch nothing else
		return len(c.objects) == len(o.objects) && !slices.ContainsFunc(c.shared, held(both))
	}
	return !slices.ContainsFunc(c.objects, held(o.objects)) && !slices.ContainsFunc(c.shared, held(both))
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
		_ = m.advance(ctx, other) // is told by inTheWay
		m.endTurn(other)
	}
}

// stuck reports whether an operation is not over soon. Called with Manager.mu
// not held, of an operation that tryLock has found: what it reads is advice.
func (op *operation) stuck() bool {
	op.m.mu.Lock()
	defer op.m.mu.Unlock()
	return !op.over && (op.long || op.waits)
}

// inTheWay is the error for who wants what another operation holds.
func (m *Manager) inTheWay(op *operation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	why := ""
	if op.failure != nil {
		why = ": " + op.failure.Error()
	}
	return refuse(syscall.EBUSY, "%s is busy: %s is not over%s; wait for it", op.Objects[0], op.Kind, why)
}

// tryLock takes all locks of op, or returns an operation that has one of them.
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

// errInterrupted is the error of an operation that its client has given up and that
// is undone.
var errInterrupted = &Refusal{syscall.EINTR, "interrupted; nothing was changed"}

// refuse is an error that says why, with an errno, and has changed nothing.
func refuse(errno syscall.Errno, format string, args ...any) error {
	return &Refusal{Errno: errno, Reason: fmt.Sprintf(format, args...)}
}

// Refusal is an operation that has changed nothing.
type Refusal struct {
	Errno  syscall.Errno
	Reason string // one line: what is in the way and what to do
}

func (r *Refusal) Error() string { return r.Reason }
func (r *Refusal) Unwrap() error { return r.Errno }
