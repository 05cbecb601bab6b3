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
// by side. The workers are in workers.go:
//
//	write:  Map ─ memory? ─► queue ─ encrypted into a buffer ─► issued ─► EndIO: buffer back
//	         └─ none left ─► waiting ─ a buffer comes back ─► queue
//	read:   Map ─► remapped ─► EndIO ─► queue ─ decrypted in place ─► complete
//
// Reads of sectors with tags go below in a buffer, like writes, so that nobody sees data
// before they are authenticated.
//
// A write is copied first and encrypted there, so that the submitter's memory is
// read once and never written to. Flushes and discards pass. Nothing keeps an order
// among bios in flight, as in the kernel.
//
// Short bios of ciphers that processors have instructions for are not handed to the workers: the
// goroutine that submits a write encrypts it, and the one that ends a read decrypts it. Another
// would take longer to begin, and its processor to fetch the data. The features
// no_write_workqueue and no_read_workqueue ask for that with all bios.
//
// # The key
//
// The key is in the target as long as it is in force: for the cipher, and because
// the table shows it. It is in locked memory (udm/internal/secret), and overwritten when
// it is wiped or the target closed. So are the round keys of AES-XTS where processors have
// instructions for it. Errors and logs do not tell it. What other ciphers have made of it, and
// the text of the table that it came in, is in Go's memory, which is dropped and not
// overwritten. A table that names a key of a [Ring] does not contain it.
//
// Lock order: workers.mu, then that of its queue; crypt.mu is a leaf.
package crypt

import (
	"encoding/binary"
	"slices"
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
	tagSize uint64 // bytes that the device below keeps beside each sector; 0: none
	reading uint64 // bytes; longer reads are handed to the workers
	writing uint64 // bytes; longer writes are
	keys    KeyStore
	workers workers
	cipher  atomic.Pointer[skcipher.Sectors] // nil: the key is wiped
	forged  atomic.Uint64                    // reads that were not authentic

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
	c.spec, _ = l.spec() // ParseLine has
	k, err := c.decode(l.Key)
	if err != nil {
		return nil, dm.Because(err, "Error decoding and setting key")
	}
	l.Key = ""
	c.reading, c.writing = c.spec.Alone()
	if err := c.open(k, wrong); err != nil {
		k.bytes.Close()
		return nil, err
	}
	t.NumFlush, t.MaxIOLen, t.AccountsIssue = 1, pieceSectors, true
	if l.AllowDiscards {
		t.NumDiscard = 1
	}
	c.workers.init(c)
	return c, nil
}

// open opens the device below and puts the key in force. wrong is what ParseLine has found
// wrong with the place.
func (c *crypt) open(k key, wrong error) (err error) {
	if c.segment, err = segment.Open(c.target, c.line.Place, "Device lookup failed"); err == nil {
		err = wrong
	}
	if err == nil {
		err = c.setTags()
	}
	if err == nil {
		err = dm.Because(c.install(k), "Error decoding and setting key")
	}
	return err
}

// setTags sees that the device below keeps the tags that the cipher needs.
func (c *crypt) setTags() error {
	if !c.spec.Tagged() {
		return nil
	}
	c.spec.TagSize = c.line.Integrity
	c.spec.Random = c.random
	below := c.segment.Dev.Limits()
	switch {
	case below.TagSize == 0:
		return dm.Because(dm.Errorf(syscall.EINVAL, "the device keeps no tags; use an integrity device without internal_hash"), "Integrity profile not supported.")
	case int(below.TagSize) != c.line.Integrity:
		return dm.Errorf(syscall.EINVAL, "Integrity profile tag size mismatch.")
	case int(below.LogicalBlock) != c.line.SectorSize:
		return dm.Errorf(syscall.EINVAL, "Integrity profile sector size mismatch.")
	}
	c.tagSize = uint64(below.TagSize)
	return nil
}

// random fills p with a vector.
func (c *crypt) random(p []byte) {
	var n [8]byte
	for len(p) > 0 {
		binary.LittleEndian.PutUint64(n[:], c.target.Env().Uint64())
		p = p[copy(p, n[:]):]
	}
}

// passage is what a clone carries through the target.
type passage struct {
	pos       blk.Position // of a read, before it went below
	sectors   uint64
	buffer    *buffer  // encrypted data of a write, or of a read with tags
	bufs      [][]byte // of such a read, which go below in the buffer
	decrypted bool
	tags      []byte // memory that stays for the next clone
}

func (c *crypt) NewPerIO() any { return new(passage) }

func (c *crypt) Map(cl *dm.Clone) dm.Outcome {
	p := cl.PerIO.(*passage)
	*p = passage{tags: p.tags[:0]}
	if cl.Op.HasData() && (cl.Sector|cl.Sectors)%c.line.sectors() != 0 {
		return dm.Kill
	}
	p.pos, p.sectors = cl.Position(), cl.Sectors
	if cl.Sectors > 0 && (cl.Op == blk.Write || cl.Op == blk.Read && c.tagSize > 0) {
		return c.mapBuffered(cl)
	}
	c.segment.Map(cl)
	return dm.Remapped
}

// mapBuffered maps a clone whose data go below in a buffer.
func (c *crypt) mapBuffered(cl *dm.Clone) dm.Outcome {
	switch admitted := c.workers.admit(cl); {
	case !admitted && cl.Flags&blk.NoWait != 0:
		cl.Complete(blk.WouldBlock)
		return dm.Submitted
	case !admitted:
		return dm.Submitted
	case cl.Op == blk.Read:
		c.readBuffered(cl)
		return dm.Remapped
	case c.line.NoWriteWorkqueue || cl.Bytes() <= c.writing:
		c.encrypt(cl)
		return dm.Remapped
	}
	c.workers.Push(cl)
	return dm.Submitted
}

// encrypt gives cl a buffer with its data encrypted, and the place to write it to.
func (c *crypt) encrypt(cl *dm.Clone) {
	p := cl.PerIO.(*passage)
	sector := cl.Offset() + c.line.IVOffset
	p.buffer = takeBuffer(cl.Bytes())
	data := p.buffer.data[:cl.Bytes()]
	cl.CopyOut(data)
	if c.tagSize > 0 {
		c.cipher.Load().Seal(data, p.makeTags(c), sector, cl.Offset())
	} else {
		c.cipher.Load().Encrypt(data, sector)
	}
	c.segment.Map(cl)
	cl.SetData(data)
	cl.Tags = p.tags
	cl.Flags &^= blk.Unstable
}

// makeTags makes room for the tags of a clone.
func (p *passage) makeTags(c *crypt) []byte {
	n := int(p.sectors / c.line.sectors() * c.tagSize)
	p.tags = slices.Grow(p.tags[:0], n)[:n]
	return p.tags
}

// readBuffered gives cl a buffer to read into, and the place to read from. Nobody sees what
// it reads before it is authenticated.
func (c *crypt) readBuffered(cl *dm.Clone) {
	p := cl.PerIO.(*passage)
	p.bufs, p.buffer = cl.Bufs, takeBuffer(cl.Bytes())
	c.segment.Map(cl)
	cl.SetData(p.buffer.data[:cl.Bytes()])
	cl.Tags = p.makeTags(c)
}

// EndIO gives a buffer back, after it has had the data of a read decrypted.
func (c *crypt) EndIO(cl *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	p := cl.PerIO.(*passage)
	if cl.Op != blk.Read || st != blk.OK || p.decrypted || p.sectors == 0 {
		c.drop(p)
		return st, dm.EndDone
	}
	p.decrypted = true
	if p.bufs != nil {
		cl.Bufs, cl.Tags = p.bufs, nil
	}
	cl.Seek(p.pos, p.sectors)
	if c.line.NoReadWorkqueue || cl.Bytes() <= c.reading {
		st = c.decrypt(cl)
		c.drop(p)
		return st, dm.EndDone
	}
	cl.Rearm()
	c.workers.Push(cl)
	return st, dm.EndIncomplete
}

// drop gives the buffer of a clone back, if it has one.
func (c *crypt) drop(p *passage) {
	if p.buffer == nil {
		return
	}
	p.buffer.put()
	p.buffer, p.bufs = nil, nil
	c.workers.release(p.sectors * blk.SectorSize)
}

// decrypt decrypts what cl, which starts at its place in the mapped device again,
// has read.
func (c *crypt) decrypt(cl *dm.Clone) blk.Status {
	if c.tagSize > 0 {
		return c.authenticate(cl)
	}
	sector := cl.Offset() + c.line.IVOffset
	cipher := c.cipher.Load()
	if data, ok := cl.Contiguous(); ok {
		cipher.Decrypt(data, sector)
		return blk.OK
	}
	b := takeBuffer(cl.Bytes()) // not counted: whoever decrypts has one at most
	data := b.data[:cl.Bytes()]
	cl.CopyOut(data)
	cipher.Decrypt(data, sector)
	cl.CopyIn(data)
	clear(data)
	b.put()
	return blk.OK
}

// authenticate decrypts a read with tags, if it is authentic.
func (c *crypt) authenticate(cl *dm.Clone) blk.Status {
	p := cl.PerIO.(*passage)
	data := p.buffer.data[:cl.Bytes()]
	defer clear(data)
	if !c.cipher.Load().Open(data, p.tags, cl.Offset()+c.line.IVOffset, cl.Offset()) {
		if n := c.forged.Add(1); n <= maxLogged {
			c.target.Log().Error("crypt: a sector is not authentic", "sector", cl.Sector, "sectors", cl.Sectors)
		}
		return blk.IOErr
	}
	cl.CopyIn(data)
	return blk.OK
}

// maxLogged bounds how often a target logs forged data.
const maxLogged = 100

// work does what a clone waits for.
func (c *crypt) work(cl *dm.Clone) {
	switch p := cl.PerIO.(*passage); {
	case cl.Op == blk.Write:
		c.encrypt(cl)
		cl.Issue()
	case c.tagSize > 0 && p.buffer == nil: // it has waited for memory
		c.readBuffered(cl)
		cl.Issue()
	default:
		cl.Complete(c.decrypt(cl))
	}
}

// Close has nothing to wait for but the workers themselves.
func (c *crypt) Close() {
	c.workers.Close()
	c.wipe()
	c.key.bytes.Close()
}

// Postsuspend and Resume say when keys may be changed.
func (c *crypt) Postsuspend() { c.setSuspended(true) }

// Resume: see Postsuspend.
func (c *crypt) Resume() { c.setSuspended(false) }

func (c *crypt) setSuspended(suspended bool) {
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
