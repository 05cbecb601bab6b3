package luks

import (
	"errors"
	"fmt"
	"slices"
)

const (
	stripes    = 4000
	areaCipher = "aes-xts-plain64" // of key slots that are made here
	areaKey    = 64
	areaUnit   = 4096 // bytes
)

// free returns an unused slot with room for a key of size bytes.
func (l *luks2) free(size int) (Slot, error) {
	s := Slot{KeySize: size, Stripes: stripes, Hash: "sha256", Priority: 1, Area: Area{Encryption: areaCipher, KeySize: areaKey}}
	ids, err := numbered(l.object("keyslots"), maxSlots)
	if err != nil {
		return s, err
	}
	for slices.Contains(ids, s.ID) {
		s.ID++
	}
	if s.ID >= maxSlots {
		return s, fmt.Errorf("all %d key slots are in use; remove one that is not needed", maxSlots)
	}
	s.Area.Size = roundUp(s.materialSize(), areaUnit)
	s.Area.Offset, err = l.gap(s.Area.Size)
	return s, err
}

// gap returns the offset of size free bytes among the areas of key slots.
func (l *luks2) gap(size uint64) (uint64, error) {
	c, err := decode[config2](l.object("config"), "config")
	if err != nil {
		return 0, err
	}
	as, err := l.areas()
	if err != nil {
		return 0, err
	}
	at := 2 * l.size
	for _, a := range as {
		if a.Offset-at >= size {
			return at, nil
		}
		at = roundUp(a.Offset+a.Size, areaUnit)
	}
	if end := 2*l.size + c.KeyslotsSize; at > end || end-at < size {
		return 0, errors.New("the header has no room for another key slot; remove one that is not needed")
	}
	return at, nil
}

// put stores s as the slot with a number, with the digest of segment 0; nil removes
// the slot.
func (l *luks2) put(id int, s *Slot) error {
	name := fmt.Sprint(id)
	if s == nil {
		l.forget(name)
		return nil
	}
	slot := keyslot2{Type: "luks2", KeySize: s.KeySize, KDF: s.KDF, AF: af2{"luks1", s.Stripes, s.Hash},
		Area: area2{"raw", s.Area.Offset, s.Area.Size, s.Area.Encryption, s.Area.KeySize}}
	if s.Priority != 1 {
		slot.Priority = &s.Priority
	}
	m, err := encode(slot)
	if err != nil {
		return err
	}
	l.object("keyslots")[name] = m
	digest, _, err := l.digest()
	if err != nil {
		return err
	}
	d := l.object("digests")[digest].(map[string]any) // digest has read it
	if list := names(d["keyslots"]); !slices.Contains(list, any(name)) {
		d["keyslots"] = append(list, name)
	}
	return nil
}

// forget removes a slot from all lists that name it; a token that names no slot
// afterwards stays.
func (l *luks2) forget(slot string) {
	delete(l.object("keyslots"), slot)
	for _, part := range []string{"digests", "tokens"} {
		for _, v := range l.object(part) {
			if m, ok := v.(map[string]any); ok && m["keyslots"] != nil {
				m["keyslots"] = slices.DeleteFunc(names(m["keyslots"]), func(n any) bool { return n == slot })
			}
		}
	}
}

// names returns a list of the document, never nil.
func names(v any) []any {
	list, _ := v.([]any)
	if list == nil {
		list = []any{}
	}
	return list
}
