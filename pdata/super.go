package pdata

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"

	"udm/blk"
)

// SuperFormat is a kind of superblock. All begin alike,
//
//	 0 u32 csum | 4 u32 flags | 8 u64 blocknr | 16 uuid[16] | 32 u64 magic
//	40 u32 version
//
// and have the root of the metadata space map somewhere behind that. The fields
// here tell what differs; a place that is 0 means that the format has no such
// field. What changes lies within the first sector, so that its write is atomic.
type SuperFormat struct {
	Kind       *Kind
	Block      uint64 // where the superblock is
	Metadata   int    // place of the metadata space map's root
	Held       int    // place of the number of the held root's block
	NeedsCheck uint32 // the flag that says so; 0: none
	Omit       [2]int // bytes that the copy for a held root has as zeroes
}

// NewSuperKind is the kind of a superblock.
func NewSuperKind(xor uint32, magic uint64) *Kind {
	return &Kind{Name: "superblock", Xor: xor, BlockNr: 8, Check: func(p []byte) string {
		if m := le.Uint64(p[32:]); m != magic {
			return fmt.Sprintf("superblock has magic %d, want %d", m, magic)
		}
		return ""
	}}
}

// Fields are the fields of a superblock that only its user knows, and what they
// lead to.
type Fields interface {
	// Load takes over the fields of a superblock and shows them to readers of
	// trees, none of whom is under way.
	Load(p []byte)

	// Open opens what the fields lead to.
	Open(tm *TM) error

	// Save brings everything that the fields lead to to rest, data space maps
	// too, and stores the fields in p, which holds those of the last commit.
	Save(p []byte) error
}

// Super is the superblock of open metadata, and the transaction that its next
// write makes real.
//
// # Commit
//
// A commit has these steps. A crash during one leaves what the right column says.
//
//	1 the pre-commit callback flushes the data device      the old transaction
//	2 fields, data map, metadata map come to rest:         the old transaction
//	  from now on only blocks are written that were free
//	  in the old transaction
//	3 changed blocks are written, then flushed             the old transaction
//	4 the superblock is written: its first sector holds    the old or the new one
//	  all that differs
//	5 the superblock is flushed                            the old or the new one
//	6 blocks freed meanwhile may be used again             the new transaction
//
// Step 1 comes first so that no mapping is durable before its data.
//
// # Abort
//
// An error in any step of a commit, and of a change but for those that leave
// everything as it was, breaks the transaction: each change and commit fails
// until Abort. The superblock may or may not have been written by then, so Abort
// reads it, forgets the cache and opens everything again. If that cannot be read
// the metadata have failed, for good.
//
// # The needs_check flag
//
// It says that a transaction was given up, and is written by itself, at once,
// over the committed superblock. Everything that this one leads to has been
// durable since before it was written first, so that nothing is flushed before,
// and the flag reaches the disk whenever this one block can be written.
//
// # The held root
//
// A held root, also called a metadata snapshot, is a copy of the committed
// superblock in a block of its own, whose trees have one more reference each:
// others read them while the metadata change.
type Super struct {
	format *SuperFormat
	fields Fields
	bm     *BlockManager
	tm     *TM

	disk      [BlockSize]byte // the superblock as it is on the disk
	held      uint64          // block of the held root; 0: none
	check     bool            // the next write sets needs_check, as the disk has it or should have it
	preCommit func() error
	broken    error       // why this transaction must be aborted
	inService bool        // something was changed since OpenSuper: from now on commits write
	changed   bool        // something was changed in this transaction
	failed    atomic.Bool // nothing works any more
}

// OpenSuper reads the superblock. fresh tells that it is all zero: Format makes
// a new one then, and Load must not be called.
func OpenSuper(bm *BlockManager, f *SuperFormat, fields Fields) (s *Super, fresh bool, err error) {
	s = &Super{format: f, fields: fields, bm: bm}
	if err := bm.ReadRaw(f.Block, s.disk[:]); err != nil {
		return nil, false, In("superblock", err)
	}
	return s, !slices.ContainsFunc(s.disk[:], func(b byte) bool { return b != 0 }), nil
}

// Load checks the superblock and takes over its fields. Nothing is opened yet.
func (s *Super) Load() error {
	if reason := s.format.Kind.Verify(s.disk[:], s.format.Block); reason != "" {
		return &Corrupt{Block: s.format.Block, Path: []uint64{s.format.Block}, Reason: reason}
	}
	s.held, s.check = 0, s.check || s.NeedsCheck()
	if at := s.format.Held; at != 0 {
		s.held = le.Uint64(s.disk[at:])
	}
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

// Format makes new metadata: the one time that blocks are written that the
// superblock, which is all zero, does not protect. make makes what the fields
// lead to.
func (s *Super) Format(make func(tm *TM) error) (err error) {
	if s.tm, err = Format(s.bm, s.format.Block); err != nil {
		return err
	}
	if err := make(s.tm); err != nil {
		return err
	}
	return s.write()
}

// Usable is EINVAL when the metadata have failed.
func (s *Super) Usable() error {
	if s.failed.Load() {
		return syscall.EINVAL
	}
	return nil
}

// Changeable says why nothing can be changed now.
func (s *Super) Changeable() error {
	switch {
	case s.failed.Load():
		return syscall.EINVAL
	case s.bm.ReadOnly():
		return syscall.EPERM
	}
	return s.broken
}

// Change runs a function that changes the metadata. Its error breaks the
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

// SetPreCommit makes every Commit call fn first; an error of fn stops it.
func (s *Super) SetPreCommit(fn func() error) { s.preCommit = fn }

// Commit makes all changes durable and then calls done, whose error breaks the
// next transaction. It does nothing before the metadata are in service, that is
// before the first change since OpenSuper; after that it always calls the
// pre-commit callback, but writes only when something was changed.
func (s *Super) Commit(done func() error) error {
	if err := s.Usable(); err != nil || !s.inService {
		return err
	}
	if err := s.Changeable(); err != nil {
		return err
	}
	if s.preCommit != nil {
		if s.broken = s.preCommit(); s.broken != nil {
			return s.broken
		}
	}
	if !s.changed {
		return nil
	}
	if s.broken = s.write(); s.broken != nil {
		return s.broken
	}
	s.changed = false
	if s.broken = done(); s.broken == nil {
		s.broken = s.bm.Settle()
	}
	return s.broken
}

// write does steps 2 to 6.
func (s *Super) write() error {
	next := s.disk
	if err := s.fields.Save(next[:]); err != nil {
		return err
	}
	if err := s.tm.PreCommit(); err != nil {
		return err
	}
	f := s.format
	clear(next[f.Metadata : f.Metadata+rootSpace])
	s.tm.Map().Root().Put(next[f.Metadata:])
	if f.Held != 0 {
		le.PutUint64(next[f.Held:], s.held)
	}
	s.putCheck(next[:])
	if err := s.tm.Commit(f.Block, f.Kind, next[:]); err != nil {
		return err
	}
	s.disk = next
	return nil
}

// Abort goes back to the last commit. An error means that the metadata have
// failed for good.
func (s *Super) Abort() error {
	if err := s.Usable(); err != nil {
		return err
	}
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
	s.broken, s.changed = nil, false
	return nil
}

// Fail makes the metadata fail for good.
func (s *Super) Fail() { s.failed.Store(true) }

// Failed reports whether nothing works any more. Safe for concurrent use.
func (s *Super) Failed() bool { return s.failed.Load() }

// Err is why the transaction must be aborted, nil if it need not be.
func (s *Super) Err() error { return s.broken }

// Changed reports whether there is anything to commit.
func (s *Super) Changed() bool { return s.changed }

func (s *Super) putCheck(p []byte) {
	flags := le.Uint32(p[4:]) &^ s.format.NeedsCheck
	if s.check {
		flags |= s.format.NeedsCheck
	}
	le.PutUint32(p[4:], flags)
}

// NeedsCheck is the needs_check flag as the disk has it.
func (s *Super) NeedsCheck() bool { return le.Uint32(s.disk[4:])&s.format.NeedsCheck != 0 }

// MustCheck reports whether the flag is set, or should be but could not be
// written.
func (s *Super) MustCheck() bool { return s.check }

// SetNeedsCheck sets the needs_check flag in the superblock on the disk and
// nothing else. It is for use right after Abort, and again later if it failed. An
// error leaves the flag to the next write of the superblock, unless NeedsCheck
// reports that the disk has taken it and only could not flush.
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
	return blk.FlushDevice(s.bm.env, s.bm.dev)
}

// ClearNeedsCheck makes the next commit clear the flag. It runs within Change.
func (s *Super) ClearNeedsCheck() { s.check = false }

// Held is the block of the held root, 0 if there is none.
func (s *Super) Held() uint64 { return s.held }

// Hold holds the last commit, which nothing may have been changed since; roots
// are those of all its trees. EBUSY if there is a held root. It runs within
// Change.
//
// The superblock gets a reference that is given up again, since the kernel
// shadows it: it decides which block is next.
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

// Release gives the held root up; del deletes the trees that it leads to. It
// runs within Change.
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
