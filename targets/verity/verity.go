// Package verity implements the target "verity": a read-only device whose blocks are
// verified against a hash tree as they are read (drivers/md/dm-verity-target.c,
// dm-verity-fec.c).
//
// [Type]'s Doc is the manual. targets/verity/hashtree describes the layout of the tree,
// targets/verity/reedsolomon the parity. targets/verity/veritytools creates both.
//
// # Life of a read
//
// Bios are split at multiples of 128 KiB, so that the parts of a long one are verified
// in parallel:
//
//	Map ─► remapped ─► EndIO ─► queue ─► a worker verifies each block ─► complete
//	                                      │ hash block not cached?
//	                                      └─► read it and verify it against its parent
//
// Workers may block while hash blocks are read. Verified hash blocks are kept in a
// bounded cache. If several workers miss the same block, one reads it and the others
// wait. A loader only waits for blocks of higher levels, so there is no deadlock.
//
// A data block whose hash does not match is first read again into memory that belongs to
// the worker, because a client that shares its buffers with the server may have changed
// them meanwhile. Then the parity is tried, and only then is the block reported as
// corrupted.
//
// # Correction
//
// Byte j of the blocks r, r+R, r+2R, … and their parity form a codeword, where R is the
// number of rounds. The blocks are a row; a worker holds one in memory (1 MiB) for each
// depth of recursion, because the hash of a corrupted block may itself be in a corrupted
// block. While correcting, a worker loads hash blocks itself even if another worker
// already loads them, so that corrections never wait for each other.
//
// Lock order: the lock of parallel.Queue and cache.mu are leaves. cache.mu is also taken
// inside the conditions of cache.wait.
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

// Type returns the target type for dm.NewControl.
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
	fec         *fec   // nil without parity
	queue       parallel.Queue
	cache       cache
	once        *bitmap // data blocks already verified; nil without check_at_most_once
	corruptions atomic.Uint64
}

// maxIOSectors is the boundary at which bios are split.
const maxIOSectors = 256

// perIO is the state of a clone in the target.
type perIO struct {
	pos     blk.Position // where the clone starts in its bio
	sectors uint64
	queued  bool // for verification
	failed  bool // the read of the data device failed
}

func (v *verity) NewPerIO() any { return new(perIO) }

func (v *verity) Map(c *dm.Clone) dm.Outcome {
	p := c.PerIO.(*perIO)
	*p = perIO{pos: c.Position(), sectors: c.Sectors}
	offset := c.Offset()
	if (offset|c.Sectors)%v.blockSize != 0 || (offset+c.Sectors)/v.blockSize > v.line.DataBlocks || c.Op != blk.Read {
		return dm.Kill
	}
	c.SetDev(v.data)
	c.Sector = offset
	return dm.Remapped
}

// EndIO queues a read for verification. Failed reads are queued only if parity may
// recover them.
func (v *verity) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	p := c.PerIO.(*perIO)
	if p.queued || st != blk.OK && (v.fec == nil || c.Flags&blk.Readahead != 0) || c.Op != blk.Read {
		return st, dm.EndDone
	}
	p.queued, p.failed = true, st != blk.OK
	c.Rearm()
	c.Seek(p.pos, p.sectors)
	v.queue.Push(c)
	return st, dm.EndIncomplete
}

// corrupted counts a corrupted block and reports whether the read fails. Like the kernel
// it logs only the first maxReports blocks.
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

// Hint makes clients send whole data blocks.
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
	l, bad := parseLine(args)
	v := &verity{target: t, line: l}
	if bad == nil || bad.devices >= 2 {
		if err := v.open(); err != nil {
			return nil, err
		}
	}
	if bad == nil || bad.devices >= 3 {
		if err := v.openFEC(); err != nil {
			return nil, err
		}
	}
	if bad != nil {
		return nil, bad.err
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

// check verifies that the table fits the devices.
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
	v.root, _ = hex.DecodeString(l.Root) // validated by parseTree
	v.zeroDigest = v.tree.ZeroDigest()
	if l.CheckAtMostOnce {
		v.once = newBitmap(l.DataBlocks)
	}
	v.target.MaxIOLen, v.target.AccountsIssue = maxIOSectors, true
	v.cache.init(v.target.Env(), l.HashBlock)
	v.queue.Init(v.target.Env(), "kverityd", 0, func() func(*dm.Clone) {
		return newWorker(v).work
	})
}

// bitmap holds one bit per data block.
type bitmap struct{ words []atomic.Uint64 }

func newBitmap(n uint64) *bitmap { return &bitmap{make([]atomic.Uint64, (n+63)/64)} }

func (b *bitmap) has(i uint64) bool { return b.words[i/64].Load()>>(i%64)&1 != 0 }
func (b *bitmap) set(i uint64)      { b.words[i/64].Or(1 << (i % 64)) }

// isZero reports whether digest is that of a data block of zeroes.
func (v *verity) isZero(digest []byte) bool { return bytes.Equal(digest, v.zeroDigest) }
