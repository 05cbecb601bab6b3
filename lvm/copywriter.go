package lvm

import (
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
)

// copyWriter writes a text into one area.
type copyWriter struct {
	env             env.Env
	disk            *Found
	area            *Area
	committed, next slot
	body            []byte // with its NUL
}

// copies returns the writers for the areas in use. Areas whose header is damaged are
// left as they are, and left tells of them.
func (a *Assembled) copies(e env.Env, body []byte) (copies []*copyWriter, left, err error) {
	for _, d := range a.byName() {
		for _, area := range d.Areas {
			s, err := readHeader(e, d.Device, area.Range)
			if err != nil {
				left = errors.Join(left, &DiskError{d.Name, area.Offset, "metadata area", err})
			}
			if area.Ignored || err != nil {
				continue
			}
			c := &copyWriter{env: e, disk: d, area: area, committed: s, body: body}
			if err := c.place(); err != nil {
				return nil, nil, &DiskError{d.Name, area.Offset, "metadata area", err}
			}
			copies = append(copies, c)
		}
	}
	if len(copies) == 0 {
		return nil, nil, errors.Join(errors.New("none of the group's disks has a metadata area that is in use and undamaged"), left)
	}
	return copies, left, nil
}

// place decides where the text goes: behind the committed one, which stays whole.
func (c *copyWriter) place() error {
	ring, size := c.area.Size-areaHeader, uint64(len(c.body))
	if t := c.area.Text; t != nil && (t.Offset != c.committed.offset || t.Checksum != c.committed.checksum) {
		return errors.New("it was changed since it was read; try again")
	}
	if most := ring/2 - areaHeader; size > most {
		return fmt.Errorf("the group's text has %d bytes, and the area has room for %d", size, most)
	}
	c.next = slot{areaHeader, size, checksum(c.body), c.committed.flags}
	if s := c.committed; s.fits(c.area.Range) {
		c.next.offset = behind(s, c.area.Size)
		if free := (s.offset + ring - c.next.offset) % ring; roundUp(size) > free {
			return fmt.Errorf("the text needs %d bytes, and %d are free", size, free)
		}
	}
	return nil
}

// fits reports whether a text can be in that place.
func (s *slot) fits(r Range) bool {
	return s.offset >= areaHeader && s.offset < r.Size && s.size > 0 && s.size <= r.Size-areaHeader
}

// behind is the place of the text after one in an area of that size.
func behind(s slot, size uint64) uint64 {
	end := s.offset + s.size
	if end > size {
		end -= size - areaHeader
	}
	if end = roundUp(end); end+areaHeader >= size {
		return areaHeader
	}
	return end
}

func roundUp(n uint64) uint64 { return (n + blk.SectorSize - 1) / blk.SectorSize * blk.SectorSize }

// writeText writes the text, of which the end may go round to the start of the ring.
func (c *copyWriter) writeText() error {
	padded := make([]byte, roundUp(c.next.size))
	copy(padded, c.body)
	first := min(uint64(len(padded)), c.area.Size-c.next.offset)
	err := c.write(padded[:first], c.next.offset)
	if err == nil && first < uint64(len(padded)) {
		err = c.write(padded[first:], areaHeader)
	}
	return err
}

func (c *copyWriter) precommit() error { return c.write(c.header(c.committed, c.next), 0) }
func (c *copyWriter) revert() error    { return c.write(c.header(c.committed, slot{}), 0) }
func (c *copyWriter) commit() error    { return c.write(c.header(c.next, slot{}), 0) }

func (c *copyWriter) header(committed, precommitted slot) []byte {
	return encodeHeader(c.area.Range, committed, precommitted)
}

func (c *copyWriter) write(p []byte, offset uint64) error {
	return writeSync(c.env, c.disk, p, c.area.Offset+offset)
}
