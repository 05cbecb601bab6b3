package veritytools

import (
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/targets/verity"
	"udm/targets/verity/reedsolomon"
)

// PlanFEC says what parity at a byte of a device covers: the data, the tree, and what
// is behind it on the hash device up to its end, or up to the parity if that is there as
// well (same).
func (h *Header) PlanFEC(offset, hashBytes uint64, same bool, roots int) (verity.FEC, error) {
	size := uint64(h.Shape.DataBlock)
	end := hashBytes
	if same {
		end = offset
	}
	need, err := h.HashBytes()
	switch {
	case err != nil:
		return verity.FEC{}, err
	case h.Shape.DataBlock != h.Shape.HashBlock:
		return verity.FEC{}, errors.New("parity needs data blocks and hash blocks of one size")
	case offset%size != 0:
		return verity.FEC{}, fmt.Errorf("parity cannot be at byte %d; use a multiple of blocks, %d", offset, size)
	case roots < 2 || roots > reedsolomon.MaxRoots:
		return verity.FEC{}, fmt.Errorf("%d bytes of parity in a word cannot be; use 2 to %d", roots, reedsolomon.MaxRoots)
	case end < need:
		return verity.FEC{}, fmt.Errorf("parity at byte %d would lie in the tree, which ends at byte %d", offset, need)
	}
	return verity.FEC{Blocks: h.Shape.DataBlocks + end/size - h.Shape.Start, Start: offset / size, Roots: roots}, nil
}

// FECBytes is how large the device with the parity has to be.
func FECBytes(f verity.FEC, block int) uint64 {
	return (f.Start + rounds(f)*uint64(f.Roots)) * uint64(block)
}

// rounds is how far apart two blocks of a row are.
func rounds(f verity.FEC) uint64 {
	n := uint64(reedsolomon.WordSize - f.Roots)
	return (f.Blocks + n - 1) / n
}

// CreateFEC writes the parity that a plan says, and makes it durable.
func CreateFEC(e env.Env, data, hash, fec blk.Device, h *Header, f verity.FEC) error {
	if have, want := fec.Limits().Size*blk.SectorSize, FECBytes(f, h.Shape.DataBlock); have < want {
		return fmt.Errorf("%v has %d bytes, and the parity takes them up to %d", fec, have, want)
	}
	w := fecWriter{env: e, data: data, hash: hash, fec: fec, header: h, plan: f, code: reedsolomon.New(f.Roots)}
	n := rounds(f)
	w.run = max(1, readSize/8/uint64(h.Shape.DataBlock))
	for first := uint64(0); first < n; first += w.run {
		if err := w.write(first, min(w.run, n-first)); err != nil {
			return err
		}
	}
	return blk.FlushDevice(e, fec)
}

// fecWriter computes the parity of a few rows at a time, whose blocks follow each other.
type fecWriter struct {
	env             env.Env
	data, hash, fec blk.Device
	header          *Header
	plan            verity.FEC
	code            *reedsolomon.Code
	run             uint64 // rows at a time
	in, parity      []byte
}

// write writes the parity of count rows.
func (w *fecWriter) write(first, count uint64) error {
	size := uint64(w.header.Shape.DataBlock)
	roots := uint64(w.plan.Roots)
	w.in = make([]byte, count*size)
	w.parity = make([]byte, count*size*roots)
	for i := range uint64(w.code.Data()) {
		if err := w.read(first + i*rounds(w.plan)); err != nil {
			return err
		}
		for j, b := range w.in {
			w.code.Add(w.parity[uint64(j)*roots:][:roots], b)
		}
	}
	return blk.WriteSectors(w.env, w.fec, w.parity, (w.plan.Start+first*roots)*(size/blk.SectorSize), 0)
}

// read reads as many blocks as w.in holds: data, then hashes, then zeroes.
func (w *fecWriter) read(block uint64) error {
	s := &w.header.Shape
	sectors := uint64(s.DataBlock / blk.SectorSize)
	for p := w.in; len(p) > 0; {
		var d blk.Device
		at, end := block, s.DataBlocks
		switch {
		case block < s.DataBlocks:
			d = w.data
		case block < w.plan.Blocks:
			d, at, end = w.hash, block-s.DataBlocks+s.Start, w.plan.Blocks
		default:
			clear(p)
			return nil
		}
		q := p[:min(uint64(len(p)), (end-block)*uint64(s.DataBlock))]
		if err := blk.ReadSectors(w.env, d, q, at*sectors); err != nil {
			return err
		}
		p = p[len(q):]
		block += uint64(len(q) / s.DataBlock)
	}
	return nil
}
