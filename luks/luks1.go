package luks

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

const (
	magic        = "LUKS\xba\xbe"
	size1        = 592 // bytes of a header of version 1
	slots1       = 8
	slotAt       = 208
	slotSize     = 48
	slotEnabled  = 0x00ac71f3
	slotDisabled = 0x0000dead
	digestSize1  = 20
	saltSize1    = 32
)

// luks1 is a header of version 1 in its on-disk format.
type luks1 struct{ raw [size1]byte }

// read1 reads a header of version 1.
func read1(st store) (*luks1, *Header, error) {
	raw, err := st.read(0, size1)
	if err != nil {
		return nil, nil, err
	}
	l := &luks1{[size1]byte(raw)}
	h, err := l.header(st.size())
	return l, h, err
}

func (l *luks1) u32(at int) uint32        { return binary.BigEndian.Uint32(l.raw[at:]) }
func (l *luks1) put(at int, n uint32)     { binary.BigEndian.PutUint32(l.raw[at:], n) }
func (l *luks1) text(at, size int) string { return cString(l.raw[at : at+size]) }

func cString(p []byte) string {
	s, _, _ := strings.Cut(string(p), "\x00")
	return s
}

// header decodes l; device is the size of the device in bytes.
func (l *luks1) header(device uint64) (*Header, error) {
	h := &Header{Version: 1, UUID: l.text(168, 40)}
	h.Segment = Segment{Encryption: l.text(8, 32) + "-" + l.text(40, 32), KeySize: int(l.u32(108)), Offset: uint64(l.u32(104)) * 512, SectorSize: 512}
	hash := l.text(72, 32)
	h.Digest = Digest{Hash: hash, Iterations: uint64(l.u32(164)), Salt: l.raw[132:164], Digest: l.raw[112:132]}
	if h.Segment.KeySize > maxKeySize || h.Segment.KeySize == 0 {
		return nil, fmt.Errorf("a volume key of %d bytes; the header is damaged", h.Segment.KeySize)
	}
	for i := range slots1 {
		s := l.slot(i, h)
		if err := l.checkPlace(&s, h.Segment.Offset, device); err != nil {
			return nil, err
		}
		switch state := l.u32(slotAt + i*slotSize); state {
		case slotEnabled:
			h.Slots = append(h.Slots, s)
		case slotDisabled:
		default:
			return nil, fmt.Errorf("key slot %d is neither in use nor free (%#x); the header is damaged", i, state)
		}
	}
	return h, nil
}

func (l *luks1) slot(i int, h *Header) Slot {
	at := slotAt + i*slotSize
	s := Slot{ID: i, KeySize: h.Segment.KeySize, Stripes: int(l.u32(at + 44)), Hash: h.Digest.Hash, Priority: 1}
	s.KDF = KDF{Type: "pbkdf2", Hash: s.Hash, Iterations: uint64(l.u32(at + 4)), Salt: l.raw[at+8 : at+40]}
	s.Area = Area{Offset: uint64(l.u32(at+40)) * 512, Encryption: h.Segment.Encryption, KeySize: s.KeySize}
	s.Area.Size = s.materialSize()
	return s
}

// checkPlace checks that the material of a slot lies after the header and, on the
// same device, before the data. Unused slots have a place, too.
func (l *luks1) checkPlace(s *Slot, data, device uint64) error {
	end := s.Area.Offset + s.Area.Size
	if s.Stripes <= 0 || s.Area.Offset < 1024 || end > device || data > s.Area.Offset && end > data {
		return fmt.Errorf("the key material of slot %d is at an impossible place; the header is damaged", s.ID)
	}
	return nil
}

// free returns an unused slot with room for its material.
func (l *luks1) free(h *Header) (Slot, error) {
	for i := range slots1 {
		s := l.slot(i, h)
		used := func(o Slot) bool {
			return o.ID == i || s.Area.Offset < o.Area.Offset+o.Area.Size && o.Area.Offset < s.Area.Offset+s.Area.Size
		}
		if !slices.ContainsFunc(h.Slots, used) {
			return s, nil
		}
	}
	return Slot{}, fmt.Errorf("all %d key slots are in use; remove one that is not needed", slots1)
}

// set puts a slot in use; nil ends its use.
func (l *luks1) set(id int, s *Slot) {
	at := slotAt + id*slotSize
	l.put(at, slotDisabled)
	l.put(at+4, 0)
	clear(l.raw[at+8 : at+40])
	if s != nil {
		l.put(at, slotEnabled)
		l.put(at+4, uint32(s.KDF.Iterations))
		copy(l.raw[at+8:at+40], s.KDF.Salt)
	}
}

// write writes the first block last, because the fields that make a slot valid lie in
// the first block or, for the last slot, all in the second.
func (l *luks1) write(st store) error {
	if block := st.block(); block < size1 {
		if err := st.write(block, l.raw[block:]); err != nil {
			return err
		}
		return st.write(0, l.raw[:block])
	}
	return st.write(0, l.raw[:])
}
