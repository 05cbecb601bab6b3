package pdata

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/internal/invariants"
)

// SuperFormat describes a superblock. All formats begin with the same fields,
//
//	 0 u32 csum | 4 u32 flags | 8 u64 blocknr | 16 uuid[16] | 32 u64 magic
//	40 u32 version
//
// followed somewhere by the root of the metadata space map. The fields below
// state the differences; an offset of 0 means that the format lacks the field.
// All fields that change lie within the first sector, so that writing them is
// atomic.
type SuperFormat struct {
	Kind       *Kind
	Block      uint64 // where the superblock is
	Metadata   int    // offset of the metadata space map's root
	Held       int    // offset of the held root's block number
	NeedsCheck uint32 // the needs_check flag; 0: none
	Omit       [2]int // byte range that is zeroed in a held root
}

// NewSuperKind returns the kind of a superblock with this checksum constant and
// magic.
func NewSuperKind(xor uint32, magic uint64) *Kind {
	return &Kind{Name: "superblock", Xor: xor, BlockNr: 8, Check: func(p []byte) string {
		if m := le.Uint64(p[32:]); m != magic {
			return fmt.Sprintf("superblock has magic %d, want %d", m, magic)
		}
		return ""
	}}
}

// Fields are the fields of a superblock that only its user knows, and the
// structures they point to.
type Fields interface {
	// Load reads the fields from a superblock and makes them visible to readers
	// of trees. No reader is active meanwhile.
	Load(p []byte)

	// Open opens the structures that the fields point to.
	Open(tm *TM) error

	// Save completes all changes to the structures that the fields point to, seals
	// data space maps, and stores the fields in p, which holds those of the last
	// commit.
	Save(p []byte) error
}

// Super is the superblock of open metadata, and the transaction that its next
// write commits.
//
// # Commit
//
// A commit has these steps. The right column states what a crash during the step
// leaves.
//
//	1 fields, data map and metadata map are completed:     the old transaction
//	  the transaction is sealed
//	2 the pre-commit callback flushes the data device      the old transaction
//	3 changed blocks are written, then flushed; all of     the old transaction
//	  them were free in the old transaction
//	4 the superblock is written: its first sector holds    the old or the new one
//	  all that differs
//	5 the superblock is flushed                            the old or the new one
//	6 blocks that it freed may be used again               the new transaction
//
// Step 2 comes before step 4 so that no mapping is durable before its data.
//
// [Super.Commit] takes all steps in a row. [Super.Seal] takes the first one,
// [Sealed.Write] those that wait for I/O, and [Super.Finish] the last one, and the
// next transaction runs meanwhile. It cannot disturb the sealed one: it shadows
// what that one changed, and it allocates only blocks that are free in the old, the
// sealed and its own state. At most one transaction is sealed at a time. If it
// fails, the running one is aborted with it, since it builds on the sealed one.
//
// # No space
//
// The devices may lie on file systems that are full. What finds no space there can be
// repeated, so it breaks nothing: blocks that were to be written stay in memory, and
// the sealed transaction is kept as it is. Until it is through nothing can be changed
// ([blk.NoSpace]). Commit goes on with it, from step 2, so that it covers what was
// written to the data device meanwhile.
//
// # Abort
//
// Another error in any step of a commit breaks the transaction, and so does the error
// of a change that has modified anything. Every change and commit then fails
// until Abort. The superblock may or may not have been written by then, so Abort
// reads it, drops the cache and opens everything again. If the superblock cannot
// be read, the metadata have failed for good.
//
// What Abort reads, or OpenSuper after the process was killed, may be only in a volatile
// cache: its flush failed or never came. Then a power cut would bring back the
// superblock before it, whose blocks may be free in this one. So the device is
// flushed after either before any block is written. What users are told is durable
// must not rest on such a superblock either: see [Super.FlushRead] and
// [Super.Doubtful].
//
// # The needs_check flag
//
// The flag records that a transaction was aborted. It is written at once and
// alone, over the committed superblock. Everything that this superblock points to
// was durable before it was first written, so no flush is needed first, and the
// flag reaches the disk whenever this one block can be written.
//
// # The held root
//
// A held root, also called a metadata snapshot, is a copy of the committed
// superblock in a block of its own. It holds one more reference to each of its
// trees, so that others can read them while the metadata change.
type Super struct {
	format *SuperFormat
	fields Fields
	bm     *BlockManager
	tm     *TM

	disk      [BlockSize]byte // the superblock as it is on disk
	held      uint64          // block of the held root; 0: none
	check     bool            // needs_check is set on disk or should be; the next write sets it
	preCommit func() error
	broken    error       // why this transaction must be aborted
	sealed    *Sealed     // the transaction that is being written; nil: none
	waits     bool        // the sealed transaction found no space to be written
	inService bool        // something changed since OpenSuper: from now on commits write
	changed   bool        // something changed in this transaction
	failed    atomic.Bool // the metadata have failed for good
}

// OpenSuper reads the superblock. If it is all zero, fresh is true: the caller
// must call Format instead of Load.
func OpenSuper(bm *BlockManager, f *SuperFormat, fields Fields) (s *Super, fresh bool, err error) {
	s = &Super{format: f, fields: fields, bm: bm}
	if err := bm.ReadRaw(f.Block, s.disk[:]); err != nil {
		return nil, false, In("superblock", err)
	}
	return s, !slices.ContainsFunc(s.disk[:], func(b byte) bool { return b != 0 }), nil
}

// Load checks the superblock and loads its fields. It opens nothing yet.
func (s *Super) Load() error {
	if reason := s.format.Kind.Verify(s.disk[:], s.format.Block); reason != "" {
		return &Corrupt{Block: s.format.Block, Path: []uint64{s.format.Block}, Reason: reason}
	}
	s.held, s.check = 0, s.check || s.NeedsCheck()
	if at := s.format.Held; at != 0 {
		s.held = le.Uint64(s.disk[at:])
	}
	s.bm.doubtful.Store(true)
	s.bm.Forget(func() { s.fields.Load(s.disk[:]) })
	return nil
}

// Open opens the space map of the metadata and then the fields.
func (s *Super) Open() (err error) {
	root := GetMapRoot(s.disk[s.format.Metadata:])
	if s.tm == nil {
		s.tm, err = OpenTM(s.bm, root)
	} else {
		err = s.tm.Reopen(root)
	}
	if err != nil {
		return err
	}
	return s.fields.Open(s.tm)
}

// Format makes new metadata. Only here are blocks written that no superblock
// protects, since it is all zero. make creates the structures that the fields
// point to.
func (s *Super) Format(make func(tm *TM) error) (err error) {
	if s.tm, err = Format(s.bm, s.format.Block); err != nil {
		return err
	}
	if err := make(s.tm); err != nil {
		return err
	}
	s.changed = true
	return s.commit(func() error { return nil })
}

// Usable returns EINVAL if the metadata have failed.
func (s *Super) Usable() error {
	if s.failed.Load() {
		return syscall.EINVAL
	}
	return nil
}

// Changeable returns the reason why nothing can be changed now, or nil.
func (s *Super) Changeable() error {
	switch {
	case s.failed.Load():
		return syscall.EINVAL
	case s.bm.ReadOnly():
		return syscall.EPERM
	case s.waits:
		return blk.NoSpace
	}
	return s.broken
}

// Change runs fn, which changes the metadata. An error of fn breaks the
// transaction.
func (s *Super) Change(fn func() error) error {
	if err := s.Changeable(); err != nil {
		return err
	}
	s.inService, s.changed = true, true
	if s.broken = fn(); s.broken == nil {
		s.broken = s.bm.Settle()
	}
	return s.broken
}

// SetPreCommit makes every commit call fn before it writes; an error of fn stops
// it. fn may run beside the owner.
func (s *Super) SetPreCommit(fn func() error) { s.preCommit = fn }

// Commit makes all changes durable and then calls done, whose error breaks the
// next transaction. It does nothing until the metadata are in service, that is,
// until the first change since OpenSuper. After that it always calls the
// pre-commit callback, but writes, and calls done, only if something changed. It
// returns [blk.NoSpace] itself, not wrapped, if a device has no space: call it again.
// No transaction may be sealed but one that waits for space.
func (s *Super) Commit(done func() error) error {
	if err := s.Usable(); err != nil || !s.inService {
		return err
	}
	if s.waits && !s.bm.ReadOnly() {
		if err := s.Finish(s.sealed, s.sealed.Write(), done); err != nil || !s.changed {
			return err
		}
	}
	if err := s.Changeable(); err != nil {
		return err
	}
	return s.commit(done)
}

func (s *Super) commit(done func() error) error {
	c, err := s.Seal()
	if err != nil {
		return err
	}
	return s.Finish(c, c.Write(), done)
}

// Sealed is a transaction that has been ended and is not durable yet.
type Sealed struct {
	bm        *BlockManager
	format    *SuperFormat
	preCommit func() error
	pages     []*page
	super     *[BlockSize]byte // nil: nothing changed
}

// Changed reports whether the transaction changed anything.
func (c *Sealed) Changed() bool { return c.super != nil }

// Seal ends the running transaction. The caller must call Write on what it
// returns, and then Finish. Before that the next transaction may begin, but not
// end or be aborted.
func (s *Super) Seal() (*Sealed, error) {
	if err := s.Changeable(); err != nil {
		return nil, err
	}
	s.checkSealed(nil)
	c := &Sealed{bm: s.bm, format: s.format}
	if s.inService {
		c.preCommit = s.preCommit
	}
	if s.changed {
		if s.broken = s.complete(c); s.broken != nil {
			return nil, s.broken
		}
	}
	s.sealed, s.changed = c, false
	return c, nil
}

func (s *Super) checkSealed(c *Sealed) {
	if invariants.Enabled {
		invariants.Check(s.sealed == c || s.waits, "a transaction is sealed, finished or aborted out of turn")
	}
}

// complete does step 1.
func (s *Super) complete(c *Sealed) (err error) {
	next := s.disk
	if err := s.fields.Save(next[:]); err != nil {
		return err
	}
	if c.pages, err = s.tm.seal(); err != nil {
		return err
	}
	f := s.format
	clear(next[f.Metadata : f.Metadata+rootSpace])
	s.tm.Map().Root().Put(next[f.Metadata:])
	if f.Held != 0 {
		le.PutUint64(next[f.Held:], s.held)
	}
	s.putCheck(next[:])
	c.super = &next
	return nil
}

// Write does steps 2 to 5. It waits for I/O, and may run beside the owner.
func (c *Sealed) Write() error {
	if c.preCommit != nil {
		if err := c.preCommit(); err != nil {
			return err
		}
	}
	if !c.Changed() {
		return nil
	}
	if err := c.bm.writePages(c.pages); err != nil {
		return err
	}
	return c.bm.WriteSuper(c.format.Block, c.format.Kind, c.super[:])
}

// Finish does step 6. err is the outcome of Write; an error breaks the running
// transaction, so that it must be aborted, except [blk.NoSpace], which leaves the
// sealed transaction to Commit. done is called if the transaction changed anything
// and is durable; its error breaks the running transaction, too.
func (s *Super) Finish(c *Sealed, err error, done func() error) error {
	s.checkSealed(c)
	if s.waits = err == blk.NoSpace; s.waits {
		return err
	}
	s.sealed = nil
	s.bm.written(c.pages, err)
	if err == nil && c.Changed() {
		s.disk = *c.super
		s.tm.durable()
		if err = done(); err == nil && s.broken == nil {
			err = s.bm.Settle()
		}
	}
	if s.broken == nil {
		s.broken = err
	}
	return err
}

// Abort goes back to the last commit. An error means that the metadata have
// failed for good. No transaction may be sealed.
func (s *Super) Abort() error {
	if err := s.Usable(); err != nil {
		return err
	}
	s.checkSealed(nil)
	s.inService = true
	err := s.bm.ReadRaw(s.format.Block, s.disk[:])
	if err == nil {
		err = s.Load()
	}
	if err == nil {
		err = s.Open()
	}
	if err != nil {
		s.Fail()
		return err
	}
	s.broken, s.sealed, s.waits, s.changed = nil, nil, false, false
	return nil
}

// Doubtful reports whether the superblock that was read may not be durable.
func (s *Super) Doubtful() bool { return s.bm.doubtful.Load() }

// FlushRead makes it durable.
func (s *Super) FlushRead() error { return s.bm.flushRead() }

// Fail makes the metadata fail for good.
func (s *Super) Fail() { s.failed.Store(true) }

// Failed reports whether the metadata have failed for good. It is safe for
// concurrent use.
func (s *Super) Failed() bool { return s.failed.Load() }

// Err returns the reason why the transaction must be aborted, or nil.
func (s *Super) Err() error { return s.broken }

// Renew makes the next Commit write the superblock even if nothing changed, once the
// metadata are in service: only a write tells that the device fails writes.
func (s *Super) Renew() { s.changed = s.changed || s.inService && s.Changeable() == nil }

// Changed reports whether anything changed that is not sealed.
func (s *Super) Changed() bool { return s.changed }

func (s *Super) putCheck(p []byte) {
	flags := le.Uint32(p[4:]) &^ s.format.NeedsCheck
	if s.check {
		flags |= s.format.NeedsCheck
	}
	le.PutUint32(p[4:], flags)
}

// NeedsCheck is the needs_check flag as it is on disk.
func (s *Super) NeedsCheck() bool { return le.Uint32(s.disk[4:])&s.format.NeedsCheck != 0 }

// MustCheck reports whether the flag is set, or should be set but could not be
// written.
func (s *Super) MustCheck() bool { return s.check }

// SetNeedsCheck sets the needs_check flag in the superblock on disk and changes
// nothing else. Call it right after Abort, and again later if it failed. After an
// error the next write of the superblock sets the flag, unless NeedsCheck reports
// that the write succeeded and only the flush failed.
func (s *Super) SetNeedsCheck() error {
	if err := s.Usable(); err != nil || s.broken != nil {
		return errors.Join(err, s.broken)
	}
	s.inService, s.check = true, true
	next := s.disk
	s.putCheck(next[:])
	if err := s.bm.writeOne(s.format.Block, s.format.Kind, next[:]); err != nil {
		return err
	}
	s.disk = next
	if err := blk.FlushDevice(s.bm.env, s.bm.dev); err != nil {
		return err
	}
	s.bm.doubtful.Store(false)
	return nil
}

// ClearNeedsCheck makes the next commit clear the flag. Call it within Change.
func (s *Super) ClearNeedsCheck() { s.check = false }

// Held is the block of the held root; 0 means none.
func (s *Super) Held() uint64 { return s.held }

// Hold makes a held root of the last commit. Nothing may have changed since then;
// roots are the roots of all its trees. The caller makes sure that no held root
// exists. Call it within Change.
//
// The superblock gains a reference and loses it again because the kernel shadows
// it here; that determines which block is allocated next.
func (s *Super) Hold(roots ...uint64) error {
	f := s.format
	if err := s.tm.Inc(f.Block); err != nil {
		return err
	}
	held, err := s.tm.New(f.Kind)
	if err != nil {
		return err
	}
	if err := s.tm.Dec(f.Block); err != nil {
		return err
	}
	copy(held.Data(), s.disk[:])
	clear(held.Data()[f.Omit[0]:f.Omit[1]])
	for _, root := range roots {
		if err := s.tm.Inc(root); err != nil {
			return err
		}
	}
	s.held = held.Nr()
	return nil
}

// Release frees the held root; del deletes the trees that it points to. Call it
// within Change.
func (s *Super) Release(del func(p []byte) error) error {
	held := s.held
	b, err := s.bm.Read(held, s.format.Kind)
	if err != nil {
		return err
	}
	s.held = 0
	if err := del(b.Bytes()); err != nil {
		return err
	}
	return s.tm.Dec(held)
}
