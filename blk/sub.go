package blk

import "fmt"

// Sub returns the part of d from sector start on, of the given length, as a device.
// It is a view: bios go straight to d with their sectors moved. Closing the view does
// nothing; d must be closed by its owner, after the bios of the view have ended. A
// part that does not start at a physical block boundary does not have d's preferences
// for larger blocks. Sub fails if the part lies beyond the end of d or not on its
// logical blocks.
func Sub(d Device, start, sectors uint64) (Device, error) {
	l := d.Limits()
	block := uint64(l.LogicalBlock / SectorSize)
	if end := start + sectors; end < start || end > l.Size {
		return nil, fmt.Errorf("sectors %d+%d of %v lie beyond its end at %d: %w", start, sectors, d, l.Size, Invalid)
	}
	if start%block != 0 || sectors%block != 0 {
		return nil, fmt.Errorf("sectors %d+%d of %v are not whole blocks of %d bytes: %w", start, sectors, d, l.LogicalBlock, Invalid)
	}
	return &sub{d: d, start: start, sectors: sectors}, nil
}

// sub's fields are set once by Sub.
type sub struct {
	d              Device
	start, sectors uint64
}

func (s *sub) Submit(b *Bio) {
	if b.Op != Flush {
		if end := b.EndSector(); end < b.Sector || end > s.sectors {
			b.Complete(Invalid)
			return
		}
		b.Sector += s.start
	}
	s.d.Submit(b)
}

func (s *sub) Limits() Limits {
	l := s.d.Limits()
	l.Size = s.sectors
	aligned := func(bytes uint32) bool { return bytes == 0 || s.start*SectorSize%uint64(bytes) == 0 }
	if !aligned(l.PhysicalBlock) || !aligned(l.MinIO) {
		l.PhysicalBlock, l.MinIO, l.OptIO = l.LogicalBlock, l.LogicalBlock, 0
	}
	if !aligned(l.OptIO) {
		l.OptIO = 0
	}
	return l
}

func (s *sub) Close() error   { return nil }
func (s *sub) String() string { return fmt.Sprintf("%v[%d+%d]", s.d, s.start, s.sectors) }

// Extents is that of the part of d.
func (s *sub) Extents(sector, sectors uint64) ([]Extent, error) {
	list := ExtentsOf(s.d, s.start+sector, sectors)
	for i := range list {
		list[i].Sector -= s.start
	}
	return list, nil
}
