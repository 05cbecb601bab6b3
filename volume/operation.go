package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// operation is a plan and how far it is.
//
//	          ┌─ fails ────────────────────► undone, last first ─┐
//	begun ─► Add ─► 0 ─► Then[0] ─► 1 ─► Then[1] ─► 2 … ─────────┴─► settled ─► ended
//	          ▲            │ refuses
//	          └────────────┘
//
// What fails on the way to the right waits, and is tried again. One at a time
// works on it, who has the operation's turn.
type operation struct {
	m    *Manager
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// Objects and Shared are what it locks: see claim.
	Objects []string `json:"objects"`
	Shared  []string `json:"shared,omitempty"`
	// Add only adds things and can be undone. Then switches over to them, and
	// takes away. The first step of Then may refuse: then it has not happened.
	Add  steps `json:"add,omitempty"`
	Then steps `json:"then,omitempty"`

	// What follows belongs to who has the turn.
	state   int  // in the journal: begun, or how many steps of Then are done
	unsure  bool // moving it from begun to 0 has failed
	entered bool // Then[0] may have been done, in part at least
	// recovering: everybody waits for the manager, and copies are left for later.
	recovering bool
	stop       func() // ends what can be undone

	// What follows is guarded by Manager.mu.
	turn    bool          // somebody works on it
	waits   bool          // nobody does, and it is to be tried again
	long    bool          // its next step takes long
	after   time.Duration // when
	over    bool
	failure error // why it waits
	passed  bool  // the point of no return
	// cancelled by a user; then it is undone, or a copy is abandoned where it is, if
	// that comes before its end.
	cancelled, undone, abandoned bool

	done     uint64
	total    uint64
	finished int // steps
}

// advance brings an operation as far as it goes. The error is why it is not
// over, or why it was undone.
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

// perform carries out an operation that is new. It is over, undone with err, or
// waits to be tried again. ctx ends what can be undone; the rest goes on until the
// manager is closed.
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

// add does the steps that can be undone. One that takes long is done with the
// objects still locked, but those who want them are told instead of waiting.
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

// takeBack undoes what an operation has added and forgets it.
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

// complete does the steps behind the point of no return. If the first one
// refuses, the operation is before it again.
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

// end removes the marks of an operation and its file in the journal, and frees
// its objects.
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

// ended frees the objects of an operation of which nothing is left to do.
func (m *Manager) ended(op *operation) {
	m.mu.Lock()
	op.over, op.failure, op.undone = true, nil, op.state == begun
	delete(m.operations, op.ID)
	m.releaseLocked(op)
	m.mu.Unlock()
	m.changed.Wake()
}

// retryAfter is how soon a step that failed is tried again.
const retryAfter = 5 * time.Second

// later leaves an operation to be tried again, and says why.
func (m *Manager) later(op *operation, err error) error {
	after := retryAfter
	if on := (*notYet)(nil); errors.As(err, &on) {
		after = on.after
	}
	m.progress(op, func() { op.waits, op.failure, op.after = true, err, after })
	return fmt.Errorf("%s of %s is not over and goes on by itself: %w", op.Kind, op.Objects[0], err)
}

// retry works on every operation that waits. It runs on the manager's queue.
func (m *Manager) retry() {
	for _, op := range m.waiting() {
		if m.takeTurn(op) {
			_ = m.advance(m.ctx, op) // is told in the list of operations
			m.endTurn(op)
		}
	}
}

// waiting are the operations that wait to be tried again, the oldest first.
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

// takeTurn makes the caller the one who works on an operation that waits.
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
