package luks

import (
	"fmt"

	"udm/blk"
	"udm/env"
)

// store accesses the device of a header by bytes.
type store struct {
	env env.Env
	dev blk.Device
}

const chunk = 128 << 10 // bytes in one bio

func (s store) size() uint64  { return s.dev.Limits().Size * blk.SectorSize }
func (s store) block() uint64 { return uint64(max(s.dev.Limits().LogicalBlock, blk.SectorSize)) }

// read returns n bytes from off on.
func (s store) read(off, n uint64) ([]byte, error) {
	if off+n < off || off+n > s.size() {
		return nil, fmt.Errorf("%v ends before byte %d, which its header needs; is it truncated?", s.dev, off+n)
	}
	begin, end := off/s.block()*s.block(), roundUp(off+n, s.block())
	p := make([]byte, end-begin)
	for at := uint64(0); at < uint64(len(p)); at += chunk {
		part := p[at:min(at+chunk, uint64(len(p)))]
		if err := blk.ReadSectors(s.env, s.dev, part, (begin+at)/blk.SectorSize); err != nil {
			return nil, fmt.Errorf("cannot read %v: %w", s.dev, err)
		}
	}
	return p[off-begin : off-begin+n : off-begin+n], nil
}

// write writes p, keeps the rest of its blocks, and makes everything durable.
func (s store) write(off uint64, p []byte) error {
	begin, end := off/s.block()*s.block(), roundUp(off+uint64(len(p)), s.block())
	if begin != off || end != off+uint64(len(p)) {
		all, err := s.read(begin, end-begin)
		if err != nil {
			return err
		}
		copy(all[off-begin:], p)
		p = all
	}
	for at := uint64(0); at < uint64(len(p)); at += chunk {
		part := p[at:min(at+chunk, uint64(len(p)))]
		if err := blk.WriteSectors(s.env, s.dev, part, (begin+at)/blk.SectorSize, 0); err != nil {
			return fmt.Errorf("cannot write to %v: %w", s.dev, err)
		}
	}
	if err := blk.FlushDevice(s.env, s.dev); err != nil {
		return fmt.Errorf("cannot flush %v: %w", s.dev, err)
	}
	return nil
}

func roundUp(n, unit uint64) uint64 { return (n + unit - 1) / unit * unit }
