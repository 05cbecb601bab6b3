// Package partition reads partition tables: GPT (both copies, with checksums) and
// MBR with logical partitions, in blocks of 512 and 4096 bytes. It writes nothing.
//
//	GPT  UEFI specification, chapter 5: block 0 an MBR with a partition of type ee,
//	     block 1 the header, then the entries; at the end of the disk the entries
//	     once more and a second header
//	MBR  block 0 four entries; the logical partitions of an extended one are a chain
//	     of such blocks, each with a partition and the place of the next
//
// Numbers are those of Linux: entries of the table from 1 on, logical partitions
// from 5 on.
//
// A GPT counts in blocks of the size with which it is found: the disk's logical
// blocks, or larger ones (a file may be a copy of a disk with blocks of 4096). An MBR
// counts in the disk's logical blocks.
//
// The table is not trusted: sizes, counts and chains are bounded, and partitions
// beyond the end of the disk are left out and reported.
package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"udm/blk"
	"udm/env"
)

// Kinds of tables, by the names that sfdisk uses.
const (
	GPT = "gpt"
	MBR = "dos"
)

// Table is a disk's partition table.
type Table struct {
	Kind       string      `json:"label"`
	ID         string      `json:"id"`               // the disk's GUID, or 0x and the signature
	Block      uint32      `json:"blockSize"`        // block size of the table in bytes
	Damage     []string    `json:"damage,omitempty"` // damage in the table, one sentence each
	Partitions []Partition `json:"partitions"`
}

// Partition is an entry of the table.
type Partition struct {
	Number   int    `json:"number"`
	Start    uint64 `json:"start"`   // in sectors of 512 bytes
	Sectors  uint64 `json:"sectors"` // of 512 bytes
	Type     string `json:"type"`    // GUID, or the byte in hexadecimal
	ID       string `json:"uuid,omitempty"`
	Name     string `json:"name,omitempty"`
	Bootable bool   `json:"bootable,omitempty"`
	Extended bool   `json:"extended,omitempty"` // contains the logical partitions
}

// ErrNone is the error for a disk without a table.
var ErrNone = errors.New("no partition table")

var le = binary.LittleEndian

// Read reads the table of d.
func Read(e env.Env, d blk.Device) (*Table, error) {
	r := &reader{file: blk.NewFile(e, d), block: uint64(d.Limits().LogicalBlock)}
	first, err := r.read(0, 1)
	if errors.Is(err, errBeyond) {
		return nil, fmt.Errorf("%v: %w", d, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case !isMBR(first):
		return nil, fmt.Errorf("%v: %w", d, ErrNone)
	case protects(first):
		err = r.gpt()
	default:
		err = r.mbr(first)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", d, err)
	}
	slices.SortFunc(r.table.Partitions, func(a, b Partition) int { return a.Number - b.Number })
	return &r.table, nil
}

// Open opens partition n of d. The caller closes d after it.
func Open(e env.Env, d blk.Device, n int) (blk.Device, error) {
	t, err := Read(e, d)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(t.Partitions, func(p Partition) bool { return p.Number == n })
	switch {
	case i < 0:
		return nil, fmt.Errorf("%v has no partition %d%s", d, n, t.numbers())
	case t.Partitions[i].Extended:
		return nil, fmt.Errorf("partition %d of %v is an extended partition, which only contains logical ones%s", n, d, t.numbers())
	}
	return blk.Sub(d, t.Partitions[i].Start, t.Partitions[i].Sectors)
}

// numbers is an addition to errors about an unusable number.
func (t *Table) numbers() string {
	var ns []int
	for _, p := range t.Partitions {
		if !p.Extended {
			ns = append(ns, p.Number)
		}
	}
	if len(ns) == 0 {
		return ""
	}
	return fmt.Sprintf("; it has %v", ns)
}

// reader reads one table.
type reader struct {
	file  *blk.File
	block uint64 // block size of the table in bytes
	table Table
}

// errBeyond is the error for blocks that are not on the disk.
var errBeyond = errors.New("beyond the end of the disk")

// blocks is the size of the disk in blocks.
func (r *reader) blocks() uint64 { return uint64(r.file.Size()) / r.block }

// read reads n blocks, a small number.
func (r *reader) read(block, n uint64) ([]byte, error) {
	if total := r.blocks(); n > total || block > total-n {
		return nil, errBeyond
	}
	p := make([]byte, n*r.block)
	if _, err := r.file.ReadAt(p, int64(block*r.block)); err != nil {
		return nil, err
	}
	return p, nil
}

// add adds a partition of count blocks from first on, unless it lies beyond the end
// of the disk.
func (r *reader) add(p Partition, first, count uint64) {
	if total := r.blocks(); count == 0 || count > total || first > total-count {
		r.damage("partition %d is not on the disk: it is left out", p.Number)
		return
	}
	p.Start, p.Sectors = first*r.block/blk.SectorSize, count*r.block/blk.SectorSize
	r.table.Partitions = append(r.table.Partitions, p)
}

func (r *reader) damage(format string, args ...any) {
	const most = 100
	if len(r.table.Damage) < most {
		r.table.Damage = append(r.table.Damage, fmt.Sprintf(format, args...))
	}
}
