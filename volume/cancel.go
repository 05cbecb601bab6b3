package volume

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"udm/dm"
)

// Cancel undoes an operation that has not passed its point of no return, and returns
// when that is complete. A copy into an object, which is past that point from the
// start, stops where it is: the object then holds a part of the data. EBUSY: the
// operation continues, and the error says what it waits for.
func (m *Manager) Cancel(ctx context.Context, id string) error {
	op, err := m.markCancelled(id)
	if err != nil {
		return err
	}
	op.stop()
	if m.takeTurn(op) {
		_ = m.advance(m.ctx, op) // problem reports the error
		m.endTurn(op)
	}
	stop := context.AfterFunc(ctx, m.changed.Wake)
	defer stop()
	problem, over := "", false
	m.changed.Until(func() bool {
		problem, over = m.problem(op)
		return over || problem != "" || ctx.Err() != nil
	})
	switch {
	case !over && problem == "":
		return refuse(syscall.EINTR, "%s of %s is being undone", op.Kind, op.about())
	case !over:
		return refuse(syscall.EBUSY, "%s of %s is being undone and waits: %s", op.Kind, op.about(), problem)
	case !op.undone && !op.abandoned:
		return refuse(syscall.ENOENT, "%s of %s was complete before it could be cancelled", op.Kind, op.about())
	}
	return nil
}

// markCancelled makes an operation end where it can, or returns why it cannot.
func (m *Manager) markCancelled(id string) (*operation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	op := m.operations[id]
	switch {
	case op == nil:
		return nil, refuse(syscall.ENOENT, "there is no operation %q; udm operations lists them", id)
	case op.passed && !op.isCopyIn():
		return nil, refuse(syscall.EBUSY, "%s of %s can no longer be undone and continues%s", op.Kind, op.about(), op.whyLocked())
	}
	op.cancelled = true
	return op, nil
}

// problem returns why an operation waits to be retried, or "" if it does not.
func (m *Manager) problem(op *operation) (text string, over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.TrimPrefix(op.whyLocked(), ": "), op.over
}

// whyLocked is problem as a clause to append to a sentence.
func (op *operation) whyLocked() string {
	if later := (*notYet)(nil); op.failure == nil || errors.As(op.failure, &later) {
		return ""
	}
	return ": " + op.failure.Error()
}

// isCopyIn reports whether an operation only copies data into an object.
func (op *operation) isCopyIn() bool {
	if len(op.Add) > 0 || len(op.Then) != 1 {
		return false
	}
	_, copies := op.Then[0].(*copyContent)
	return copies
}

// abandons reports whether an operation stops where it is.
func (m *Manager) abandons(op *operation) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	op.abandoned = op.cancelled && op.isCopyIn()
	return op.abandoned
}

// outcomeLocked is the error of a complete operation that was not undone.
func (op *operation) outcomeLocked() error {
	if !op.abandoned {
		return nil
	}
	return dm.Errorf(syscall.EINTR, "cancelled; %s holds a part of the copied data", op.about())
}

// Alone runs a command that changes a device outside the manager, while no operation
// works on the device. EBUSY if a long one does.
func (m *Manager) Alone(ctx context.Context, name string, f func() error) error {
	op := &operation{Kind: "a command", turn: true, m: m}
	cl := claim{objects: []string{name}}
	for _, suffix := range []string{realSuffix, baseSuffix} {
		if front, part := strings.CutSuffix(name, suffix); part {
			cl.objects = append(cl.objects, front)
		}
	}
	if err := m.acquire(ctx, op, func() (claim, error) { return cl, nil }); err != nil {
		return err
	}
	defer m.release(op)
	return f()
}
