package dm

import (
	"slices"
	"sort"
	"sync"
	"syscall"

	"udm/blk"
)

// Spec is one line of a table as text: start and length in sectors, the name of the
// target's type, and the words after it.
type Spec struct {
	Start, Len uint64
	Type       string
	Params     string
}

// Mode says how a table is loaded: for reading, or also for writing.
type Mode struct{ Write bool }

// Table maps the sectors of a device to its targets. The targets of a complete table
// never change, so look-ups need no lock.
type Table struct {
	dev     *Device
	mode    Mode
	specs   []Spec // as loaded
	targets []*Target
	ends    []uint64 // ends[i] is the sector after targets[i]
	size    uint64

	mu     sync.Mutex
	opened []*Dev // guarded by mu; most recently opened last
	users  int    // guarded by mu; number of control operations that use the targets
}

// use keeps the table from being closed until release, for status and messages: they run
// concurrently with a resume that replaces the table.
func (t *Table) use() {
	t.mu.Lock()
	t.users++
	t.mu.Unlock()
}

func (t *Table) release() {
	t.mu.Lock()
	t.users--
	t.mu.Unlock()
	t.dev.drained.Wake()
}

func (t *Table) unused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.users == 0
}

// targetCore is the core's part of a target.
type targetCore struct {
	mapper Mapper
	hooks  hooks
	pieces sync.Pool
}

// newTable constructs the targets of specs for d. After an error, everything that was
// opened or made has been closed again.
func newTable(d *Device, specs []Spec, mode Mode) (*Table, error) {
	t := &Table{dev: d, mode: mode, specs: slices.Clone(specs)}
	if len(specs) == 0 {
		return nil, Errorf(syscall.EINVAL, "empty table")
	}
	whole := false
	defer func() {
		if !whole { // an error, or a constructor that panics
			t.close()
		}
	}()
	for _, s := range specs {
		if err := t.add(s); err != nil {
			return nil, err
		}
	}
	whole = true
	return t, nil
}

// maxSectors is the largest device: its size in bytes is a signed 64-bit number.
const maxSectors = 1<<54 - 1

// add constructs one target. The order of the checks is that of the kernel's
// dm_table_add_target.
func (t *Table) add(s Spec) error {
	if t.singleton() {
		return Errorf(syscall.EINVAL, "%s must appear alone in table", t.targets[0].Type.Name)
	}
	if s.Len == 0 {
		return Errorf(syscall.EINVAL, "zero-length target")
	}
	if end := s.Start + s.Len; end < s.Start || end > maxSectors {
		return Errorf(syscall.EINVAL, "too large device")
	}
	ty, err := t.dev.control.typeNamed(s.Type)
	if err != nil {
		return err
	}
	if err := t.admit(ty); err != nil {
		return err
	}
	if s.Start != t.size {
		return Errorf(syscall.EINVAL, "Gap in table")
	}
	return t.construct(&Target{Type: ty, Begin: s.Start, Len: s.Len, table: t}, SplitWords(s.Params))
}

func (t *Table) singleton() bool {
	return len(t.targets) > 0 && t.targets[0].Type.Features&Singleton != 0
}

func (t *Table) admit(ty *Type) error {
	if ty.Features&Singleton != 0 && len(t.targets) > 0 {
		return Errorf(syscall.EINVAL, "%s must appear alone in table", ty.Name)
	}
	if ty.Features&AlwaysWriteable != 0 && !t.mode.Write {
		return Errorf(syscall.EINVAL, "%s may not be included in a read-only table", ty.Name)
	}
	if im := t.immutable(); len(t.targets) > 0 && (im != nil && im != ty || im == nil && ty.Features&Immutable != 0) {
		return Errorf(syscall.EINVAL, "immutable target type %s cannot be mixed with other target types", ty.Name)
	}
	return nil
}

// immutable returns the table's immutable target type, or nil.
func (t *Table) immutable() *Type {
	for _, ti := range t.targets {
		if ti.Type.Features&Immutable != 0 {
			return ti.Type
		}
	}
	return nil
}

func (t *Table) construct(ti *Target, args []string) error {
	m, err := ti.Type.New(ti, args)
	if err != nil {
		return err
	}
	ti.core.mapper = m
	ti.core.hooks = findHooks(ti, m)
	ti.core.pieces.New = func() any { return newPiece(ti) }
	t.targets = append(t.targets, ti)
	t.size += ti.Len
	t.ends = append(t.ends, t.size)
	return nil
}

// find returns the target that maps a sector, or nil beyond the end.
func (t *Table) find(sector uint64) *Target {
	if len(t.targets) == 1 {
		if sector < t.size {
			return t.targets[0]
		}
		return nil
	}
	i := sort.Search(len(t.ends), func(i int) bool { return sector < t.ends[i] })
	if i == len(t.ends) {
		return nil
	}
	return t.targets[i]
}

// open opens a lower device for this table. A device that the table has open already is
// not opened twice; but if it was opened for reading and write is set, the open for
// writing replaces that one.
func (t *Table) open(name string, write bool) (*Dev, error) {
	l, err := t.dev.openLower(name, write)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.opened, func(d *Dev) bool { return d.Number == l.num })
	if i < 0 {
		d := &Dev{Device: l.dev, Number: l.num, Write: write, lower: l}
		t.opened = append(t.opened, d)
		return d, nil
	}
	d := t.opened[i]
	if write && !d.Write {
		l, d.lower, d.Device, d.Write = d.lower, l, l.dev, true
	}
	t.dev.drop(l)
	return d, nil
}

// deps returns the numbers of the table's devices, the most recently opened first, as
// the kernel does.
func (t *Table) deps() []Number {
	t.mu.Lock()
	defer t.mu.Unlock()
	ns := make([]Number, 0, len(t.opened))
	for _, d := range slices.Backward(t.opened) {
		ns = append(ns, d.Number)
	}
	return ns
}

// close undoes newTable. No I/O may be in flight, and the table must not be in a slot.
func (t *Table) close() {
	t.dev.drained.Until(t.unused)
	for _, ti := range slices.Backward(t.targets) {
		ti.core.mapper.Close()
	}
	t.mu.Lock()
	opened := t.opened
	t.opened = nil
	t.mu.Unlock()
	for _, d := range slices.Backward(opened) {
		t.dev.drop(d.lower)
	}
}

// clones returns how many clones of a bio with an op the target wants.
func (ti *Target) clones(op blk.Op) int {
	switch op {
	case blk.Flush:
		return ti.NumFlush
	case blk.Discard:
		return ti.NumDiscard
	case blk.WriteZeroes:
		return ti.NumWriteZeroes
	}
	return 1
}
