package veritytools

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// UUID is a UUID as stored on disk, with the bytes in the order of its text.
type UUID [16]byte

// NewUUID returns a random UUID.
func NewUUID() (u UUID, err error) {
	_, err = rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // version 4
	return u, err
}

// ParseUUID parses the canonical text of a UUID, with dashes, in upper or lower case.
func ParseUUID(text string) (u UUID, err error) {
	n, err := hex.Decode(u[:], []byte(strings.ReplaceAll(text[:min(len(text), 36)], "-", "")))
	if err != nil || n != len(u) || u.String() != strings.ToLower(text) {
		return u, fmt.Errorf("%q is not a UUID; use the form 01234567-89ab-cdef-0123-456789abcdef", text)
	}
	return u, nil
}

func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
