package verity

import (
	"bytes"
	"slices"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/verity/reedsolomon"
)

// fec is the parity of a target. Blocks that it covers are numbered in one sequence: data
// blocks, then the blocks of the hash device from HashStart, then blocks of zeroes.
type fec struct {
	v      *verity
	dev    *dm.Dev
	code   *reedsolomon.Code
	blocks uint64 // number of blocks covered, without those of zeroes
	start  uint64 // of the parity on dev, in blocks
	rounds uint64 // distance between two blocks of a row
}

func (v *verity) openFEC() error {
	f := v.line.FEC
	if f.Device == "" {
		return nil
	}
	dev, err := v.target.Open(f.Device, false)
	if err != nil {
		return dm.Because(err, "FEC device lookup failed")
	}
	if f.Roots == 0 {
		return nil
	}
	code := reedsolomon.New(f.Roots)
	n := uint64(code.Data())
	v.fec = &fec{v, dev, code, f.Blocks, f.Start, f.Blocks/n + min(1, f.Blocks%n)}
	return nil
}

func (f *fec) check(hashBlocks uint64) error {
	l, size := f.v.line, f.v.blockSize
	switch {
	case hashBlocks < f.blocks-l.DataBlocks:
		return dm.Errorf(syscall.E2BIG, "Hash device is too small for fec_blocks")
	case f.dev.Limits().Size/size < f.start || f.dev.Limits().Size/size-f.start < f.rounds*uint64(l.FEC.Roots):
		return dm.Errorf(syscall.E2BIG, "FEC device is too small")
	case f.v.data.Limits().Size/size < l.DataBlocks:
		return dm.Errorf(syscall.E2BIG, "Data device is too small")
	}
	return nil
}

// row holds the blocks whose bytes form codewords, and their parity.
type row struct {
	blocks   [][]byte // by their position in the codeword
	memory   []byte   // of blocks
	parity   []byte
	unread   []int // positions that could not be read
	wrong    []int // positions whose hash does not match, and the unread ones
	word     [reedsolomon.WordSize]byte
	repaired []byte // the corrected block
}

func (f *fec) newRow() *row {
	size, n := f.v.line.DataBlock, f.code.Data()
	return &row{blocks: make([][]byte, n), memory: make([]byte, n*size), parity: make([]byte, f.code.Roots()*size), repaired: make([]byte, size)}
}

// correctHash corrects the block at a position of the hash device.
func (w *worker) correctHash(p []byte, position uint64, want []byte, depth int) bool {
	return w.correct(p, position-w.line.HashStart+w.line.DataBlocks, want, depth)
}

// correct recovers a block of the covered sequence into p from the other blocks of its
// row, and reports whether its hash then matches. It first decodes without erasures,
// then with the blocks whose hashes do not match as erasures.
func (w *worker) correct(p []byte, block uint64, want []byte, depth int) bool {
	if w.fec == nil || depth >= maxDepth {
		return false
	}
	if w.rows[depth] == nil {
		w.rows[depth] = w.fec.newRow()
	}
	r := w.rows[depth]
	if w.fec.readRow(r, block%w.fec.rounds) != nil {
		return false
	}
	pos := int(block / w.fec.rounds)
	if !w.fec.decode(r, pos, nil) || !bytes.Equal(w.hasher(depth).Sum(r.repaired), want) {
		w.findWrong(r, block%w.fec.rounds, pos, depth)
		if !w.fec.decode(r, pos, r.wrong) || !bytes.Equal(w.hasher(depth).Sum(r.repaired), want) {
			return false
		}
	}
	copy(p, r.repaired)
	w.target.Log().Warn("verity: a block was corrected", "block", block)
	return true
}

// readRow reads the blocks of a row and their parity. Blocks that cannot be read are
// zeroed and listed in r.unread.
func (f *fec) readRow(r *row, first uint64) error {
	v, size := f.v, f.v.line.DataBlock
	r.unread = r.unread[:0]
	for i := range r.blocks {
		r.blocks[i] = r.memory[i*size : (i+1)*size]
		if err := f.read(r.blocks[i], first+uint64(i)*f.rounds); err != nil {
			clear(r.blocks[i])
			r.unread = append(r.unread, i)
		}
	}
	return blk.ReadSectors(v.target.Env(), f.dev, r.parity, f.start*v.blockSize+first*uint64(f.code.Roots())*v.blockSize)
}

// read reads a block of the covered sequence.
func (f *fec) read(p []byte, block uint64) error {
	e, v := f.v.target.Env(), f.v
	switch {
	case block >= f.blocks:
		clear(p)
		return nil
	case block >= v.line.DataBlocks:
		return blk.ReadSectors(e, v.hash, p, (block-v.line.DataBlocks+v.line.HashStart)*v.blockSize)
	}
	return blk.ReadSectors(e, v.data, p, block*v.blockSize)
}

// findWrong sets r.wrong: the block at pos, the unread ones, and the data blocks whose
// hash does not match. It stops when there are more than the parity can correct.
func (w *worker) findWrong(r *row, first uint64, pos, depth int) {
	r.wrong = append(append(r.wrong[:0], pos), r.unread...)
	for i, p := range r.blocks {
		block := first + uint64(i)*w.fec.rounds
		if block >= w.line.DataBlocks || len(r.wrong) > w.fec.code.Roots() {
			break
		}
		if i == pos || slices.Contains(r.unread, i) {
			continue
		}
		want, st := w.digest(block, depth+1)
		if st == blk.OK && !bytes.Equal(w.hasher(depth).Sum(p), want) {
			r.wrong = append(r.wrong, i)
		}
	}
	if slices.Contains(r.unread, pos) {
		r.wrong = r.wrong[1:]
	}
}

// decode computes the block at position pos of the row into r.repaired. It reports false
// if a codeword cannot be corrected.
func (f *fec) decode(r *row, pos int, erasures []int) bool {
	roots, n := f.code.Roots(), f.code.Data()
	if len(erasures) > roots {
		return false
	}
	for j := range r.repaired {
		for i, p := range r.blocks {
			r.word[i] = p[j]
		}
		copy(r.word[n:], r.parity[j*roots:(j+1)*roots])
		if _, err := f.code.Decode(r.word[:], erasures); err != nil {
			return false
		}
		r.repaired[j] = r.word[pos]
	}
	return true
}
