package partition

import "fmt"

// Entries of an MBR have 16 bytes: 0 0x80 if bootable, 4 type, 8 first block:32, 12
// blocks:32; the rest is obsolete addresses in cylinders.
const (
	mbrEntries   = 446
	mbrEntrySize = 16
	mbrSignature = 510
	maxLogical   = 256 // limit of Linux
)

type mbrEntry struct {
	boot, kind   byte
	first, count uint32
}

func entriesOf(block []byte) (es [4]mbrEntry) {
	for i := range es {
		p := block[mbrEntries+i*mbrEntrySize:]
		es[i] = mbrEntry{p[0], p[4], le.Uint32(p[8:]), le.Uint32(p[12:])}
	}
	return es
}

func (e mbrEntry) empty() bool    { return e.kind == 0 || e.count == 0 }
func (e mbrEntry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

func (e mbrEntry) partition(number int) Partition {
	return Partition{Number: number, Type: fmt.Sprintf("%x", e.kind), Bootable: e.boot == 0x80, Extended: e.extended()}
}

// isMBR reports whether a block is an MBR. The boot sector of a file system has the
// same signature, but no entries.
func isMBR(block []byte) bool {
	if le.Uint16(block[mbrSignature:]) != 0xaa55 {
		return false
	}
	for _, e := range entriesOf(block) {
		if e.boot&^0x80 != 0 {
			return false
		}
	}
	return true
}

// protects reports whether an MBR says that there is a GPT.
func protects(block []byte) bool {
	for _, e := range entriesOf(block) {
		if e.kind == 0xee {
			return true
		}
	}
	return false
}

func (r *reader) mbr(block []byte) error {
	r.table = Table{Kind: MBR, ID: fmt.Sprintf("0x%08x", le.Uint32(block[440:])), Block: uint32(r.block)}
	next := 5
	for i, e := range entriesOf(block) {
		if e.empty() {
			continue
		}
		r.add(e.partition(i+1), uint64(e.first), uint64(e.count))
		if e.extended() {
			if err := r.logical(e, &next); err != nil {
				return err
			}
		}
	}
	return nil
}

// logical reads the partitions in an extended one. Their places are relative to the
// block that names them; the place of the next block is relative to the extended
// partition.
func (r *reader) logical(in mbrEntry, number *int) error {
	seen := make(map[uint64]bool)
	for at, more := uint64(in.first), true; more; {
		if seen[at] || *number >= 5+maxLogical || len(seen) >= 2*maxLogical {
			r.damage("the chain of logical partitions is a loop: the rest is left out")
			return nil
		}
		seen[at] = true
		block, err := r.read(at, 1)
		if err == nil && le.Uint16(block[mbrSignature:]) != 0xaa55 {
			err = fmt.Errorf("block %d has no signature", at)
		}
		if err != nil {
			r.damage("the chain of logical partitions breaks at block %d (%v): the rest is left out", at, err)
			return nil
		}
		here := at
		more = false
		for _, e := range entriesOf(block) {
			switch {
			case e.empty():
			case e.extended() && !more:
				at, more = uint64(in.first)+uint64(e.first), true
			case !e.extended():
				r.add(e.partition(*number), here+uint64(e.first), uint64(e.count))
				*number++
			}
		}
	}
	return nil
}
