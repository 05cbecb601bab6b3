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

// Machine is what a manager runs on.
type Machine struct {
	Env     env.Env
	Devices Devices
	Files   Files
	FS      hostfs.FS // of the journal
	Root    string    // directory of the journal and of the manager's own files
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

	ctx      context.Context // of background work
	cancel   context.CancelFunc
	queue    env.Queue // runs retries
	retrying *env.Work
	// finishing looks for objects that are hydrated, as long as there are hydrating ones.
	finishing *env.Work
	changed   env.Wait // woken when an operation makes progress

	mu         sync.Mutex
	operations map[string]*operation // guarded by mu; incomplete ones
	locks      map[string]*lock      // guarded by mu
	bases      map[string]Base       // guarded by mu; last known state of images
	receiving  map[string]bool       // guarded by mu; names of objects being received
}

// New returns a manager. Call [Manager.Recover] before use.
func New(w Machine) *Manager {
	m := &Manager{
		env: w.Env, devices: w.Devices, control: w.Devices.Control(), files: w.Files, root: w.Root, log: w.Log,
		journal: journal{w.FS, filepath.Join(w.Root, "operations")},
		queue:   w.Env.NewQueue("volume"), changed: w.Env.NewWait(),
		operations: make(map[string]*operation), locks: make(map[string]*lock), bases: make(map[string]Base), receiving: make(map[string]bool),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.retrying, m.finishing = env.NewWork(m.retry), env.NewWork(m.finishHydrated)
	return m
}

// Recover completes or undoes the operations that the last daemon left. Call it once
// the devices are back and before anything is served. Operations that cannot be
// completed yet keep their objects locked and are retried; the error names them, and
// everything else works.
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
	m.queue.QueueAfter(m.finishing, lookForHydrated)
	return errors.Join(err, m.removeAllAbandoned(ctx))
}

// Close stops background work. The next manager continues it.
func (m *Manager) Close() {
	m.cancel()
	m.queue.Close()
}

// change is a requested change before it is planned.
type change interface {
	// kind is its name for users.
	kind() string
	// touches returns what it locks.
	touches(m *Manager) (claim, error)
	// plan lists the steps, with the locks held. It refuses what cannot be done.
	plan(m *Manager, op *operation) error
}

// run carries out a change. It returns when the change is complete, or with an error
// that says what continues in the background.
func (m *Manager) run(ctx context.Context, c change) error {
	if m.ctx.Err() != nil {
		return refuse(syscall.EINTR, "the daemon is stopping; try again when it runs")
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

// await waits for an operation to end that runs in the background.
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
		return dm.Errorf(syscall.EINTR, "%s of %s continues in the background", op.Kind, op.about())
	}
	return failure
}

// Operation is an incomplete operation.
type Operation struct {
	ID      string   `json:"id"`
	Kind    string   `json:"kind"`
	Objects []string `json:"objects"`
	// Steps of All steps are done. Done of Total bytes are done of the present step,
	// if that is long.
	Steps   int    `json:"steps"`
	All     int    `json:"all"`
	Done    uint64 `json:"done,omitempty"`
	Total   uint64 `json:"total,omitempty"`
	Problem string `json:"problem,omitempty"` // why it waits for a retry
}

// Operations lists incomplete operations, in a stable order.
func (m *Manager) Operations() []Operation {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Operation, 0)
	for _, op := range m.operations {
		o := Operation{ID: op.ID, Kind: op.Kind, Objects: op.Objects, Steps: op.finished,
			All: len(op.Add) + len(op.Then), Done: op.done, Total: op.total}
		if len(o.Objects) == 0 {
			o.Objects = op.Shared
		}
		o.Problem = strings.TrimPrefix(op.whyLocked(), ": ")
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b Operation) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// underWay returns the incomplete operation of a kind on an object, or nil.
func (m *Manager) underWay(kind, name string) *operation {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range m.operations {
		if op.Kind == kind && op.about() == name {
			return op
		}
	}
	return nil
}
