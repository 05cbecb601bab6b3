package thinrescue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

var le = binary.LittleEndian

// lastID is the highest key in the device tree; ids above thinmeta.MaxID are of volumes
// that are being deleted.
const lastID = math.MaxUint32

// Options say how metadata are examined.
type Options struct {
	BlockSectors uint64                   // size of the pool's blocks; 0: as the superblock says
	DataSectors  uint64                   // size of the data device; 0: not known
	Outdated     bool                     // take what is lost from older transactions
	CacheBytes   int                      // 0: 64 MiB
	Progress     func(done, total uint64) // metadata blocks that were searched; may be nil
}

// Pool is what was found in the metadata of a pool. It belongs to one owner: calls of
// its methods and of those of its volumes take turns.
type Pool struct {
	Source        Source
	TransactionID uint64
	NeedsCheck    bool
	BlockSectors  uint64 // size of the pool's blocks
	DataBlocks    uint64 // 0: not known
	Volumes       []*Volume
	Damaged       []uint64 // damaged metadata blocks of trees that were read; the first 1000
	Damages       int      // how many there are
	Unclaimed     uint64   // mappings that were found and whose volume is not known

	env      env.Env
	meta     blk.Device
	bm       *pdata.BlockManager
	blocks   uint64
	progress func(done, total uint64)

	dataSectors uint64 // 0: not known
	outdated    bool

	lost    map[uint64]*lost
	known   table[summary] // of whole inner nodes of mappings
	reached pdata.BlockSet
	details map[uint32]thinmeta.Details
	exact   bool // details are those of the last transaction, and complete
	listed  bool // the trees tell all volumes that there are
}

// Source says how the trees of a pool were found.
type Source string

const (
	BySuperblock Source = "superblock"         // which is undamaged
	ByDamaged    Source = "damaged-superblock" // whose fields lead to trees that fit each other
	BySearch     Source = "search"             // of all blocks
)

// Volume is a volume that was found.
type Volume struct {
	ID       uint32
	Orphan   uint64            // root of a volume whose id is lost; else 0
	Details  *thinmeta.Details // nil: lost
	Found    bool              // by search: it may be out of date
	Mapped   uint64            // blocks whose mappings were found
	Searched uint64            // those of them that were found by search
	End      uint64            // the block after the last one that is known
	Missing  []Range           // ranges whose mappings are lost; the first 10000
	Gaps     int               // how many such ranges there are

	pool     *Pool
	root     uint64   // 0: there is none
	older    []uint64 // roots that it had, the newest first
	rootless State    // what its blocks are then
}

// Range is a range of a volume's blocks. The last one of a volume may have no end.
type Range struct{ Begin, End uint64 }

// NoEnd is the end of a range of which only the beginning is known.
const NoEnd = math.MaxUint64

// Name is how a volume is named: its id, or @ and its root block.
func (v *Volume) Name() string {
	if v.Orphan != 0 {
		return "@" + strconv.FormatUint(v.Orphan, 10)
	}
	return strconv.FormatUint(uint64(v.ID), 10)
}

// Whole reports whether all of the volume is known, as of the last transaction.
func (v *Volume) Whole() bool { return v.Gaps == 0 && v.Searched == 0 && !v.Found }

// Volume returns the volume with a name.
func (p *Pool) Volume(name string) (*Volume, error) {
	i := slices.IndexFunc(p.Volumes, func(v *Volume) bool { return v.Name() == name })
	if i < 0 {
		return nil, fmt.Errorf("no volume %s was found; udm rescue lists what was", name)
	}
	return p.Volumes[i], nil
}

// Examine reads metadata. It only fails if there is nothing to be read from, or if the
// size of the pool's blocks is not known.
func Examine(e env.Env, meta blk.Device, o Options) (*Pool, error) {
	p := &Pool{env: e, meta: meta, bm: pdata.NewBlockManager(e, meta, o.CacheBytes), progress: o.Progress,
		lost: map[uint64]*lost{}, BlockSectors: o.BlockSectors, dataSectors: o.DataSectors, outdated: o.Outdated}
	p.bm.SetReadOnly(true)
	p.blocks = p.bm.Blocks()
	p.known = newTable[summary](p.blocks)
	if p.blocks == 0 {
		return nil, errors.New("the metadata device is smaller than a block")
	}
	sb := p.superblock()
	t := p.readTrees(sb.MappingRoot, sb.DetailsRoot)
	p.adopt(t)
	if p.Source != BySuperblock || !t.whole || len(p.lost) > 0 {
		p.search(sb, t)
	}
	for _, v := range p.Volumes {
		p.survey(v)
	}
	return p, p.checkBlocks()
}

// superblock reads the superblock as far as it can be used.
func (p *Pool) superblock() *thinmeta.Super {
	var raw [pdata.BlockSize]byte
	var sb thinmeta.Super
	if p.bm.ReadRaw(thinmeta.SuperBlock, raw[:]) != nil {
		p.Source = BySearch
		p.damaged(thinmeta.SuperBlock)
		return &sb
	}
	sb.Decode(raw[:])
	p.Source = BySuperblock
	if thinmeta.KindSuper.Verify(raw[:], thinmeta.SuperBlock) != "" {
		p.damaged(thinmeta.SuperBlock)
		p.Source = ByDamaged
	}
	p.take(&sb)
	return &sb
}

// take takes what a superblock says of the pool as a whole, if it makes sense.
func (p *Pool) take(sb *thinmeta.Super) {
	if p.BlockSectors == 0 && goodBlock(uint64(sb.DataBlockSize)) {
		p.BlockSectors = uint64(sb.DataBlockSize)
	}
	p.TransactionID, p.DataBlocks, p.NeedsCheck = sb.TransactionID, sb.Data.Blocks, sb.NeedsCheck()
	if p.Source != BySuperblock {
		p.TransactionID, p.DataBlocks, p.NeedsCheck = 0, 0, false
	}
	p.fitData()
}

// fitData limits the data blocks to those of the data device.
func (p *Pool) fitData() {
	if p.dataSectors == 0 || p.BlockSectors == 0 {
		return
	}
	if n := p.dataSectors / p.BlockSectors; p.DataBlocks == 0 || n < p.DataBlocks {
		p.DataBlocks = n
	}
}

func goodBlock(sectors uint64) bool {
	return sectors >= 128 && sectors <= 2097152 && sectors%128 == 0
}

func (p *Pool) checkBlocks() error {
	if goodBlock(p.BlockSectors) {
		return nil
	}
	return errors.New("the superblock does not say how large the pool's blocks are; give --block-size, as in the table of the pool, lvs -o chunk_size or a backup in /etc/lvm")
}

// damaged notes a damaged block.
func (p *Pool) damaged(nr uint64) {
	if p.Damages++; len(p.Damaged) < 1000 {
		p.Damaged = append(p.Damaged, nr)
	}
}

// adopt makes the volumes of trees.
func (p *Pool) adopt(t *trees) {
	p.details, p.exact = t.details, t.detailsWhole && p.Source == BySuperblock
	p.listed = t.detailsWhole && len(t.details) > 0 || t.whole && p.Source == BySuperblock
	p.Volumes = nil
	for _, id := range slices.Sorted(maps.Keys(t.roots)) {
		p.add(&Volume{ID: id, root: t.roots[id], Found: p.Source != BySuperblock})
	}
}

// add adds a volume, and looks for damage in it.
func (p *Pool) add(v *Volume) {
	v.pool = p
	if d, ok := p.details[v.ID]; ok && v.Orphan == 0 {
		v.Details = &d
	}
	if v.ID <= thinmeta.MaxID || v.Orphan != 0 {
		p.Volumes = append(p.Volumes, v)
	}
	p.survey(v) // also one that is being deleted: it holds nodes
}
