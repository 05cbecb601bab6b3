package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// operation is a plan and its progress.
//
//	          ┌─ fails ────────────────────► undone, last first ─┐
//	begun ─► Add ─► 0 ─► Then[0] ─► 1 ─► Then[1] ─► 2 … ─────────┴─► settled ─► ended
//	          ▲            │ refuses
//	          └────────────┘
//
// An operation that fails on the way to the right waits for a retry. Whoever has its
// turn works on it, one at a time.
type operation struct {
	m    *Manager
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// Objects and Shared are what it locks: see claim.
	Objects []string `json:"objects"`
	Shared  []string `json:"shared,omitempty"`
	// Add only adds things and can be undone. Then switches over to them and removes
	// the old ones. The first step of Then may refuse, which leaves everything
	// unchanged.
	Add  steps `json:"add,omitempty"`
	Then steps `json:"then,omitempty"`

	// The fields below belong to whoever has the turn.
	state   int  // in the journal: begun, or how many steps of Then are done
	unsure  bool // moving it from begun to 0 failed
	entered bool // Then[0] may have been done, at least in part
	// recovering: the manager is not ready yet, so copies are left for later.
	recovering bool
	stop       func() // interrupts what can be undone

	// The fields below are guarded by Manager.mu.
	turn    bool          // somebody works on it
	waits   bool          // it waits for a retry
	long    bool          // its next step takes long
	after   time.Duration // time until the retry
	over    bool
	failure error // why it waits
	passed  bool  // past the point of no return
	// cancelled by a user: it is undone, or a copy is abandoned, unless it ends
	// before that.
	cancelled, undone, abandoned bool

	done     uint64
	total    uint64
	finished int // steps
}

// about is the name of the object that the operation is about.
func (op *operation) about() string { return slices.Concat(op.Objects, op.Shared)[0] }

// advance works on an operation as far as possible. The error says why it is not
// complete, or why it was undone.
func (m *Manager) advance(ctx context.Context, op *operation) error {
	if op.state == begun {
		return m.takeBack(ctx, op)
	}
	err := m.complete(ctx, op)
	if err != nil && op.state == begun {
		return errors.Join(err, m.takeBack(ctx, op))
	}
	return err
}

// perform carries out a new operation. It is then complete, undone with err, or
// waiting for a retry. ctx interrupts what can be undone; the rest continues until
// the manager is closed.
func (m *Manager) perform(ctx context.Context, op *operation) (err error) {
	op.state = begun
	if err := m.journal.prepare(op); err != nil {
		m.ended(op)
		return err
	}
	if err = m.journal.begin(op); err == nil {
		err = m.add(ctx, op)
	}
	if err == nil {
		op.unsure = true
		err = m.journal.move(op, begun, 0)
	}
	if err != nil {
		return errors.Join(err, m.takeBack(m.ctx, op))
	}
	op.state, op.unsure = 0, false
	m.progress(op, func() { op.passed = true })
	return m.advance(m.ctx, op)
}

// add does the steps that can be undone. During a long one the objects stay locked,
// but whoever needs them gets an error instead of waiting.
func (m *Manager) add(ctx context.Context, op *operation) error {
	for _, s := range op.Add {
		if err := m.addOne(ctx, op, s); err != nil {
			return err
		}
		m.progress(op, func() { op.finished++ })
	}
	return nil
}

func (m *Manager) addOne(ctx context.Context, op *operation, s step) error {
	for {
		err := s.do(ctx, m, op)
		var later *notYet
		if !errors.As(err, &later) {
			return err
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
		m.progress(op, func() { op.long, op.done, op.total = true, later.done, later.total })
	}
}

// takeBack undoes what an operation has added and forgets the operation.
func (m *Manager) takeBack(ctx context.Context, op *operation) error {
	if op.unsure {
		if err := m.journal.move(op, 0, begun); err != nil {
			return m.later(op, err)
		}
		op.unsure = false
	}
	for _, s := range slices.Backward(op.Add) {
		if err := s.undo(ctx, m, op); err != nil {
			return m.later(op, err)
		}
	}
	return m.end(op)
}

// complete does the steps behind the point of no return. If the first one refuses,
// the operation is before that point again.
func (m *Manager) complete(ctx context.Context, op *operation) error {
	for op.state < len(op.Then) && !m.abandons(op) {
		if _, copies := op.Then[op.state].(*copyContent); copies && op.recovering {
			m.progress(op, func() { op.long = true })
			return m.later(op, &notYet{})
		}
		err := op.Then[op.state].do(ctx, m, op)
		var on *notYet
		switch {
		case errors.As(err, &on):
			op.entered = true
			m.progress(op, func() { op.long, op.done, op.total = true, on.done, on.total })
			return m.later(op, err)
		case err != nil && op.state == 0 && !op.entered && !errors.Is(err, ErrUnsure):
			op.state, op.unsure = begun, true
			m.progress(op, func() { op.passed = false })
			return err
		case err != nil:
			return m.later(op, err)
		}
		if err := m.journal.move(op, op.state, op.state+1); err != nil {
			op.entered = true
			return m.later(op, err)
		}
		op.state++
		m.progress(op, func() { op.finished++ })
	}
	return m.end(op)
}

// end removes the marks of an operation and its journal file, and unlocks its
// objects.
func (m *Manager) end(op *operation) error {
	for _, s := range op.Add {
		if s, ok := s.(settler); ok {
			if err := s.settle(m, op); err != nil {
				return m.later(op, err)
			}
		}
	}
	if err := m.journal.end(op, op.state); err != nil {
		return m.later(op, err)
	}
	m.ended(op)
	return nil
}

// ended unlocks the objects of a complete operation.
func (m *Manager) ended(op *operation) {
	m.mu.Lock()
	op.over, op.failure, op.undone = true, nil, op.state == begun
	delete(m.operations, op.ID)
	m.releaseLocked(op)
	m.mu.Unlock()
	m.changed.Wake()
}

// retryAfter is the time until a failed step is retried.
const retryAfter = 5 * time.Second

// later schedules a retry of an operation and says why.
func (m *Manager) later(op *operation, err error) error {
	after := retryAfter
	if on := (*notYet)(nil); errors.As(err, &on) {
		after = on.after
	}
	m.progress(op, func() { op.waits, op.failure, op.after = true, err, after })
	return fmt.Errorf("%s of %s is not complete and will be retried: %w", op.Kind, op.about(), err)
}

// retry works on every operation that waits. It runs on the manager's queue.
func (m *Manager) retry() {
	for _, op := range m.waiting() {
		if m.takeTurn(op) {
			_ = m.advance(m.ctx, op) // the list of operations shows the error
			m.endTurn(op)
		}
	}
	_ = m.removeAllAbandoned(m.ctx) // which may have been in the way of that
}

// waiting returns the operations that wait for a retry, oldest first.
func (m *Manager) waiting() []*operation {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ops []*operation
	for _, op := range m.operations {
		if op.waits {
			ops = append(ops, op)
		}
	}
	slices.SortFunc(ops, func(a, b *operation) int { return cmp.Compare(a.ID, b.ID) })
	return ops
}

// takeTurn gives the caller the turn of a waiting operation.
func (m *Manager) takeTurn(op *operation) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if op.turn || op.over {
		return false
	}
	op.turn, op.waits = true, false
	return true
}

// endTurn lets others work on an operation; the queue does so after a while.
func (m *Manager) endTurn(op *operation) {
	m.mu.Lock()
	op.turn = false
	after := time.Duration(-1)
	for _, o := range m.operations {
		if o.waits && (after < 0 || o.after < after) {
			after = o.after
		}
	}
	m.mu.Unlock()
	m.changed.Wake()
	if after >= 0 {
		m.queue.QueueAfter(m.retrying, after)
	}
}

func (m *Manager) progress(op *operation, f func()) {
	m.mu.Lock()
	f()
	m.mu.Unlock()
	m.changed.Wake()
}
