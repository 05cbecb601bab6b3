package veritytools

import (
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/targets/verity"
	"udm/targets/verity/reedsolomon"
)

// PlanFEC returns the parameters of the parity that starts at a byte offset of its
// device. The parity covers the data, the tree, and the rest of the hash device, which has
// hashBytes bytes, or the rest up to the parity if that is on the hash device (same).
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
		return verity.FEC{}, errors.New("parity requires data blocks and hash blocks of the same size")
	case offset%size != 0:
		return verity.FEC{}, fmt.Errorf("parity cannot start at byte %d; use a multiple of the block size, %d", offset, size)
	case roots < 2 || roots > reedsolomon.MaxRoots:
		return verity.FEC{}, fmt.Errorf("%d bytes of parity per codeword are not possible; use 2 to %d", roots, reedsolomon.MaxRoots)
	case end < need:
		return verity.FEC{}, fmt.Errorf("parity at byte %d would overlap the tree, which ends at byte %d", offset, need)
	}
	return verity.FEC{Blocks: h.Shape.DataBlocks + end/size - h.Shape.Start, Start: offset / size, Roots: roots}, nil
}

// FECBytes returns the size that the device with the parity must have, in bytes.
func FECBytes(f verity.FEC, block int) uint64 {
	return (f.Start + rounds(f)*uint64(f.Roots)) * uint64(block)
}

// rounds returns the distance between two blocks of a row.
func rounds(f verity.FEC) uint64 {
	n := uint64(reedsolomon.WordSize - f.Roots)
	return (f.Blocks + n - 1) / n
}

// CreateFEC writes the parity with parameters from PlanFEC, and makes it durable.
func CreateFEC(e env.Env, data, hash, fec blk.Device, h *Header, f verity.FEC) error {
	if have, want := fec.Limits().Size*blk.SectorSize, FECBytes(f, h.Shape.DataBlock); have < want {
		return fmt.Errorf("%v has %d bytes, but the parity ends at byte %d", fec, have, want)
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

// fecWriter computes the parity of several consecutive rows at a time, so that it reads
// runs of consecutive blocks.
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

// read fills w.in from a block of the covered sequence on: data blocks, then the blocks of
// the hash device from the tree on, then zeroes.
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
