// Package verity is the target "verity": a read-only device whose every block is
// checked against a tree of hashes when it is read (drivers/md/dm-verity-target.c,
// dm-verity-fec.c).
//
// The manual is [Type]'s Doc. Where hashes lie is said in targets/verity/hashtree, what
// parity is in targets/verity/reedsolomon; what makes such disks is
// targets/verity/veritytools.
//
// # Life of a read
//
// Bios are cut at every 128 KiB, so that the parts of a long one are worked on side by
// side:
//
//	Map ─► remapped ─► EndIO ─► queue ─► a worker checks each block ─► complete
//	                                      │ hash block not in the cache?
//	                                      └─► read, checked against its parent first
//
// Workers wait for hash blocks. A hash block that was checked stays in the cache, whose
// size is bounded; several workers that want one that is not there read it once. A
// loader waits only for blocks of higher levels, so none waits for itself.
//
// A data block whose hash is wrong is read once more, into memory of the worker: what a
// client shares with us, it may have changed meanwhile. Then parity is tried, and then
// it is corrupted.
//
// # Correction
//
// Byte j of the blocks r, r+R, r+2R, … together with parity is a word, where R is the
// number of rounds. A worker has memory for the blocks of one such row (1 MiB) for each
// depth, since a block that is wrong may have its hash in a block that is wrong, too.
// A wrong hash block that somebody else loads is then loaded beside him, so that
// corrections never wait for each other.
//
// Lock order: parallel.Queue's lock and cache.mu are leaves, but cache.mu is taken in
// conditions of cache.wait.
package verity

import (
	"bytes"
	"encoding/hex"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/parallel"
	"udm/targets/verity/hashtree"
)

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "verity", Version: [3]uint32{1, 9, 0}, New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
}

type verity struct {
	target      *dm.Target
	line        *Line
	data, hash  *dm.Dev
	tree        *hashtree.Tree
	root        []byte
	zeroDigest  []byte // of a data block of zeroes
	blockSize   uint64 // sectors of a data block
	fec         *fec   // nil: none
	queue       parallel.Queue
	cache       cache
	once        *bitmap // data blocks that were checked; nil: all are checked always
	corruptions atomic.Uint64
}

// pieceSectors is where bios are cut.
const pieceSectors = 256

// passage is what a clone carries through the target.
type passage struct {
	pos     blk.Position // before it went below
	sectors uint64
	checked bool
	failed  bool // below
}

func (v *verity) NewPerIO() any { return new(passage) }

func (v *verity) Map(c *dm.Clone) dm.Outcome {
	p := c.PerIO.(*passage)
	*p = passage{pos: c.Position(), sectors: c.Sectors}
	offset := c.Offset()
	if (offset|c.Sectors)%v.blockSize != 0 || (offset+c.Sectors)/v.blockSize > v.line.DataBlocks || c.Op != blk.Read {
		return dm.Kill
	}
	c.SetDev(v.data)
	c.Sector = offset
	return dm.Remapped
}

// EndIO has what was read checked.
func (v *verity) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	p := c.PerIO.(*passage)
	if p.checked || st != blk.OK && (v.fec == nil || c.Flags&blk.Readahead != 0) || c.Op != blk.Read {
		return st, dm.EndDone
	}
	p.checked, p.failed = true, st != blk.OK
	c.Rearm()
	c.Seek(p.pos, p.sectors)
	v.queue.Push(c)
	return st, dm.EndIncomplete
}

// corrupted tells that a block is, and returns whether that is an error. Like the
// kernel it tells a hundred times.
func (v *verity) corrupted(kind string, block uint64) (failed bool) {
	if n := v.corruptions.Add(1); n <= maxReports {
		v.target.Log().Error("verity: a block is corrupted", "kind", kind, "block", block)
		if n == maxReports {
			v.target.Log().Error("verity: no more corrupted blocks are reported")
		}
		v.target.Event()
	}
	return v.line.Mode != Ignore
}

const maxReports = 100

func (v *verity) Close() { v.queue.Close() }

func (v *verity) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		return (&Status{v.corruptions.Load() > 0}).String()
	}
	l := *v.line
	l.Data, l.Hash = v.data.Name(), v.hash.Name()
	if v.fec != nil {
		l.FEC.Device = v.fec.dev.Name()
	}
	return l.String()
}

func (v *verity) Areas() []dm.Area { return []dm.Area{{Dev: v.data, Len: v.target.Len}} }

// Hint asks for whole blocks.
func (v *verity) Hint(h *blk.Limits) {
	size := uint32(v.line.DataBlock)
	h.LogicalBlock = max(h.LogicalBlock, size)
	h.PhysicalBlock = max(h.PhysicalBlock, size)
	h.MinIO = max(h.MinIO, h.LogicalBlock)
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if t.Writable() {
		return nil, dm.Errorf(syscall.EINVAL, "Device must be readonly")
	}
	l, wrong := parseLine(args)
	v := &verity{target: t, line: l}
	if wrong == nil || wrong.devices >= 2 {
		if err := v.open(); err != nil {
			return nil, err
		}
	}
	if wrong == nil || wrong.devices >= 3 {
		if err := v.openFEC(); err != nil {
			return nil, err
		}
	}
	if wrong != nil {
		return nil, wrong.err
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	v.start()
	return v, nil
}

func (v *verity) open() (err error) {
	if v.data, err = v.target.Open(v.line.Data, false); err != nil {
		return dm.Because(err, "Data device lookup failed")
	}
	v.hash, err = v.target.Open(v.line.Hash, false)
	return dm.Because(err, "Hash device lookup failed")
}

// check sees that all fits the devices.
func (v *verity) check() (err error) {
	l := v.line
	if v.tree, err = l.tree(); err != nil {
		return err
	}
	v.blockSize = uint64(l.DataBlock / blk.SectorSize)
	hashBlocks := v.hash.Limits().Size / uint64(l.HashBlock/blk.SectorSize)
	switch {
	case uint32(l.DataBlock) < v.data.Limits().LogicalBlock:
		return dm.Errorf(syscall.EINVAL, "Invalid data device block size")
	case uint32(l.HashBlock) < v.hash.Limits().LogicalBlock:
		return dm.Errorf(syscall.EINVAL, "Invalid hash device block size")
	case v.target.Len > l.DataBlocks*v.blockSize:
		return dm.Errorf(syscall.EINVAL, "Data device is too small")
	case hashBlocks < v.tree.End():
		return dm.Errorf(syscall.E2BIG, "Hash device is too small")
	case v.fec != nil:
		return v.fec.check(hashBlocks)
	}
	return nil
}

func (v *verity) start() {
	l := v.line
	v.root, _ = hex.DecodeString(l.Root) // parseTree has seen it
	v.zeroDigest = v.tree.ZeroDigest()
	if l.CheckAtMostOnce {
		v.once = newBitmap(l.DataBlocks)
	}
	v.target.MaxIOLen, v.target.AccountsIssue = pieceSectors, true
	v.cache.init(v.target.Env(), l.HashBlock)
	v.queue.Init(v.target.Env(), "kverityd", 0, func() func(*dm.Clone) {
		return newWorker(v).work
	})
}

// bitmap has a bit for each data block.
type bitmap struct{ words []atomic.Uint64 }

func newBitmap(n uint64) *bitmap { return &bitmap{make([]atomic.Uint64, (n+63)/64)} }

func (b *bitmap) has(i uint64) bool { return b.words[i/64].Load()>>(i%64)&1 != 0 }
func (b *bitmap) set(i uint64)      { b.words[i/64].Or(1 << (i % 64)) }

// isZero reports whether a digest is that of a block of zeroes.
func (v *verity) isZero(digest []byte) bool { return bytes.Equal(digest, v.zeroDigest) }
