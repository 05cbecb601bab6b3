// Package crypt is the target "crypt": what is written is encrypted, what is read
// decrypted (drivers/md/dm-crypt.c).
//
//	crypt CIPHER KEY IV_OFFSET DEVICE OFFSET [COUNT FEATURE…]
//
// The manual is [Type]'s Doc. What a cipher is called and how it works is said in
// targets/crypt/skcipher.
//
// # Life of a bio
//
// Bios are cut at every 128 KiB, so that the parts of a long one are worked on side
// by side. The works are in workers.go:
//
//	write:  Map ─ memory? ─► todo ─ encrypted into a buffer ─► issued ─► EndIO: buffer back
//	         └─ none left ─► waiting ─ a buffer comes back ─► todo
//	read:   Map ─► remapped ─► EndIO ─► todo ─ decrypted in place ─► complete
//
// A write is copied first and encrypted there, so that the submitter's memory is
// read once and never written to. Flushes and discards pass. Nothing keeps an order
// among bios in flight, as in the kernel.
//
// # The key
//
// The key is in the target as long as it is in force: for the cipher, and because
// the table shows it. It is overwritten when it is wiped or the target closed. Errors
// and logs do not tell it. What the cipher has made of it, and the text of the table
// that it came in, is Go's memory, which is dropped and not overwritten.
//
// Lock order: workers.mu and crypt.mu are leaves.
package crypt

import (
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/crypt/skcipher"
	"udm/targets/internal/segment"
)

// KeyStore gives keys by name, as the kernel's keyring does to tables that name one.
type KeyStore interface {
	// Key is a copy of the key of a kind ("logon", "user") with a description. The
	// error's errno is the kernel's: ENOKEY when there is none.
	Key(kind, description string) ([]byte, error)
}

// Type is the target type, to be given to dm.NewControl. keys may be nil: then a
// table that names a key is refused.
func Type(keys KeyStore) *dm.Type {
	construct := func(t *dm.Target, args []string) (dm.Mapper, error) { return construct(t, args, keys) }
	return &dm.Type{Name: "crypt", Version: [3]uint32{1, 24, 0}, New: construct, Parse: dm.Parser(ParseLine), Doc: doc}
}

type crypt struct {
	target  *dm.Target
	line    *Line // without the key
	spec    skcipher.Spec
	segment segment.Segment
	keys    KeyStore
	workers workers
	cipher  atomic.Pointer[skcipher.Sectors] // nil: the key is wiped

	mu        sync.Mutex
	key       key  // guarded by mu
	suspended bool // guarded by mu
}

// pieceSectors is where bios are cut.
const pieceSectors = maxBuffer / blk.SectorSize

func construct(t *dm.Target, args []string, keys KeyStore) (dm.Mapper, error) {
	l, wrong := ParseLine(args)
	if l == nil {
		return nil, wrong
	}
	if t.Len%l.sectors() != 0 {
		return nil, dm.Errorf(syscall.EINVAL, "Device size is not multiple of sector_size feature")
	}
	c := &crypt{target: t, line: l, keys: keys}
	c.spec, _ = skcipher.Parse(l.Cipher) // ParseLine has
	if err := c.set(l.Key); err != nil {
		return nil, dm.Because(err, "Error decoding and setting key")
	}
	l.Key = ""
	var err error
	if c.segment, err = segment.Open(t, l.Place, "Device lookup failed"); err != nil {
		return nil, err
	}
	if wrong != nil {
		return nil, wrong
	}
	t.NumFlush, t.MaxIOLen, t.AccountsIssue = 1, pieceSectors, true
	if l.AllowDiscards {
		t.NumDiscard = 1
	}
	c.workers.init(c)
	return c, nil
}

// passage is what a clone carries through the target.
type passage struct {
	pos       blk.Position // of a read, before it went below
	sectors   uint64
	buffer    *buffer // of a write, encrypted
	decrypted bool
}

func (c *crypt) NewPerIO() any { return new(passage) }

func (c *crypt) Map(cl *dm.Clone) dm.Outcome {
	p := cl.PerIO.(*passage)
	*p = passage{}
	if cl.Op.HasData() && (cl.Sector|cl.Sectors)%c.line.sectors() != 0 {
		return dm.Kill
	}
	if cl.Op == blk.Write && cl.Sectors > 0 {
		return c.write(cl)
	}
	p.pos, p.sectors = cl.Position(), cl.Sectors
	c.segment.Map(cl)
	return dm.Remapped
}

func (c *crypt) write(cl *dm.Clone) dm.Outcome {
	switch admitted := c.workers.admit(cl); {
	case !admitted && cl.Flags&blk.NoWait != 0:
		cl.Complete(blk.WouldBlock)
		return dm.Submitted
	case !admitted:
		return dm.Submitted
	case c.line.NoWriteWorkqueue:
		c.encrypt(cl)
		return dm.Remapped
	}
	c.workers.push(cl)
	return dm.Submitted
}

// encrypt gives cl a buffer with its data encrypted, and the place to write it to.
func (c *crypt) encrypt(cl *dm.Clone) {
	p := cl.PerIO.(*passage)
	sector := cl.Offset() + c.line.IVOffset
	p.buffer = takeBuffer(cl.Bytes())
	data := p.buffer.data[:cl.Bytes()]
	cl.CopyOut(data)
	c.cipher.Load().Encrypt(data, sector)
	c.segment.Map(cl)
	cl.SetData(data)
	cl.Flags &^= blk.Unstable
}

// EndIO gives a write's buffer back, and has the data of a read decrypted.
func (c *crypt) EndIO(cl *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	p := cl.PerIO.(*passage)
	if p.buffer != nil {
		bytes := p.sectors * blk.SectorSize
		p.buffer.put()
		p.buffer = nil
		c.workers.release(bytes)
	}
	if cl.Op != blk.Read || st != blk.OK || p.decrypted {
		return st, dm.EndDone
	}
	p.decrypted = true
	cl.Seek(p.pos, p.sectors)
	if c.line.NoReadWorkqueue {
		c.decrypt(cl)
		return st, dm.EndDone
	}
	cl.Rearm()
	c.workers.push(cl)
	return st, dm.EndIncomplete
}

// decrypt decrypts what cl, which starts at its place in the mapped device again,
// has read.
func (c *crypt) decrypt(cl *dm.Clone) {
	sector := cl.Offset() + c.line.IVOffset
	cipher := c.cipher.Load()
	if data, ok := cl.Contiguous(); ok {
		cipher.Decrypt(data, sector)
		return
	}
	b := takeBuffer(cl.Bytes()) // not counted: a worker has one at most
	data := b.data[:cl.Bytes()]
	cl.CopyOut(data)
	cipher.Decrypt(data, sector)
	cl.CopyIn(data)
	clear(data)
	b.put()
}

// work does what a clone waits for.
func (c *crypt) work(cl *dm.Clone) {
	if cl.Op == blk.Write {
		c.encrypt(cl)
		cl.Issue()
		return
	}
	c.decrypt(cl)
	cl.Complete(blk.OK)
}

// Close has nothing to wait for but the works themselves.
func (c *crypt) Close() {
	c.workers.close()
	c.wipe()
}

// Postsuspend and Resume say when keys may be changed.
func (c *crypt) Postsuspend() { c.turn(true) }

// Resume: see Postsuspend.
func (c *crypt) Resume() { c.turn(false) }

func (c *crypt) turn(suspended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspended = suspended
}

// Preresume refuses to go on without a key.
func (c *crypt) Preresume() error {
	if c.cipher.Load() == nil {
		return dm.Errorf(syscall.EAGAIN, "crypt key is not set; send the message \"key set KEY\" first")
	}
	return nil
}

func (c *crypt) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		return ""
	}
	l := *c.line
	l.Place = c.segment.Place()
	c.mu.Lock()
	defer c.mu.Unlock()
	l.Key = c.key.word()
	return l.String()
}

func (c *crypt) Areas() []dm.Area { return []dm.Area{c.segment.Area(c.target.Len)} }

// Hint asks for whole sectors. What is written below is a copy, which stays as it
// is whatever the submitter does.
func (c *crypt) Hint(h *blk.Limits) {
	size := uint32(c.line.SectorSize)
	h.LogicalBlock = max(h.LogicalBlock, size)
	h.PhysicalBlock = max(h.PhysicalBlock, size)
	h.MinIO = max(h.MinIO, size)
	h.StableWrites = false
}
