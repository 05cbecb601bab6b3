package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
)

// Machine is what a manager works with.
type Machine struct {
	Env     env.Env
	Devices Devices
	Files   Files
	FS      hostfs.FS // of the journal
	Root    string    // directory of the journal, and of the files that it makes
	Log     *slog.Logger
}

// Manager carries out operations on volumes. It is safe for concurrent use.
type Manager struct {
	env     env.Env
	devices Devices
	control *dm.Control
	files   Files
	root    string
	log     *slog.Logger
	journal journal

	ctx      context.Context // of what goes on by itself
	cancel   context.CancelFunc
	queue    env.Queue // of retrying
	retrying *env.Work
	changed  env.Wait // woken when an operation has got on

	mu         sync.Mutex
	operations map[string]*operation // guarded by mu; those that are not over
	locks      map[string]*lock      // guarded by mu
	bases      map[string]Base       // guarded by mu; images as they were seen last
}

// New returns a manager that has not recovered yet: see [Manager.Recover].
func New(w Machine) *Manager {
	m := &Manager{
		env: w.Env, devices: w.Devices, control: w.Devices.Control(), files: w.Files, root: w.Root, log: w.Log,
		journal: journal{w.FS, filepath.Join(w.Root, "operations")},
		queue:   w.Env.NewQueue("volume"), changed: w.Env.NewWait(),
		operations: make(map[string]*operation), locks: make(map[string]*lock), bases: make(map[string]Base),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.retrying = env.NewWork(m.retry)
	return m
}

// Recover completes or undoes what the last daemon has left, once its devices
// are back and before anything is served. What cannot be completed yet waits, its
// objects locked. The error tells of it; the rest works.
func (m *Manager) Recover(ctx context.Context) error {
	ops, err := m.journal.read()
	for _, op := range ops {
		op.m, op.stop, op.passed = m, func() {}, op.state != begun
		m.mu.Lock()
		m.operations[op.ID] = op
		m.takeLocked(op)
		op.turn = true
		m.mu.Unlock()
		op.recovering = true
		aerr := m.advance(ctx, op)
		op.recovering = false
		m.endTurn(op)
		if later := (*notYet)(nil); !errors.As(aerr, &later) {
			err = errors.Join(err, aerr)
		}
	}
	return err
}

// Close stops what goes on by itself. The next manager goes on with it.
func (m *Manager) Close() {
	m.cancel()
	m.queue.Close()
}

// change is what is to be done, before anything is looked at.
type change interface {
	// kind is what people call it.
	kind() string
	// touches is what it locks.
	touches(m *Manager) (claim, error)
	// plan lists the steps, under the locks. It refuses what cannot be done.
	plan(m *Manager, op *operation) error
}

// run carries out a change. It returns once that is over, or the error that says
// what goes on by itself.
func (m *Manager) run(ctx context.Context, c change) error {
	if m.ctx.Err() != nil {
		return refuse(syscall.EINTR, "the daemon is ending; try again when it runs")
	}
	sctx, stop := context.WithCancel(ctx)
	defer stop()
	op := &operation{ID: fmt.Sprintf("%016x", m.env.Uint64()), Kind: c.kind(), turn: true, m: m, stop: stop}
	if err := m.acquire(ctx, op, func() (claim, error) { return c.touches(m) }); err != nil {
		return err
	}
	err := c.plan(m, op)
	if err == nil {
		err = m.keyed(slices.Concat(op.Add, op.Then))
	}
	if err != nil {
		m.release(op)
		return err
	}
	m.numberDevices(op)
	m.mu.Lock()
	m.operations[op.ID] = op
	m.mu.Unlock()
	err = m.perform(sctx, op)
	m.endTurn(op)
	if later := (*notYet)(nil); err == nil || errors.As(err, &later) {
		return m.await(ctx, op)
	}
	return err
}

// await waits for an operation that goes on by itself, or is over.
func (m *Manager) await(ctx context.Context, op *operation) error {
	stop := context.AfterFunc(ctx, m.changed.Wake)
	defer stop()
	var failure error
	over := false
	m.changed.Until(func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		over, failure = op.over, op.failure
		if over {
			failure = op.outcomeLocked()
		} else if op.whyLocked() == "" {
			failure = nil
		}
		return over || failure != nil || ctx.Err() != nil
	})
	if failure == nil && !over {
		return dm.Errorf(syscall.EINTR, "%s of %s goes on in the background", op.Kind, op.Objects[0])
	}
	return failure
}

// Operation is an operation that is not over.
type Operation struct {
	ID      string   `json:"id"`
	Kind    string   `json:"kind"`
	Objects []string `json:"objects"`
	// Steps are how many of All are done. Done and Total are bytes of the one
	// that is under way, if it takes long.
	Steps   int    `json:"steps"`
	All     int    `json:"all"`
	Done    uint64 `json:"done,omitempty"`
	Total   uint64 `json:"total,omitempty"`
	Problem string `json:"problem,omitempty"` // why it waits to be tried again
}

// Operations lists what is under way, in no order that means anything but lasts.
func (m *Manager) Operations() []Operation {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Operation, 0)
	for _, op := range m.operations {
		o := Operation{ID: op.ID, Kind: op.Kind, Objects: op.Objects, Steps: op.finished,
			All: len(op.Add) + len(op.Then), Done: op.done, Total: op.total}
		o.Problem = strings.TrimPrefix(op.whyLocked(), ": ")
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b Operation) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// underWay is the operation of a kind on an object that is not over, nil if there
// is none.
func (m *Manager) underWay(kind, name string) *operation {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range m.operations {
		if op.Kind == kind && op.Objects[0] == name {
			return op
		}
	}
	return nil
}
