package luks

import (
	"fmt"
	"slices"
	"strings"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/crypt"
	"udm/targets/crypt/skcipher"
	"udm/targets/integrity"
)

// Authenticated disks (LUKS2): an integrity device without internal_hash lies at the offset of
// the data, and the target crypt on it stores tags there.

// noTags is the Integrity of a segment that stores only vectors.
const noTags = "none"

// cipher is the cipher of the segment in a line for crypt, and the profile of its tags, "" for
// none.
func (s *Segment) cipher() (name, profile string) {
	parts := strings.SplitN(s.Encryption, "-", 3)
	cipher, mode, iv := parts[0], "", parts[len(parts)-1]
	if len(parts) == 3 {
		mode = parts[1]
	}
	inner := mode + "(" + cipher + ")"
	switch s.Integrity {
	case "":
		return s.Encryption, ""
	case noTags:
		return "capi:" + inner + "-" + iv, noTags
	case "aead":
	case "poly1305":
		inner = "rfc7539(" + cipher + ",poly1305)"
	default:
		inner = "authenc(" + s.Integrity + "," + inner + ")"
	}
	return "capi:" + inner + "-" + iv, "aead"
}

// spec is the cipher of the segment, with the size of its tags.
func (s *Segment) spec() (spec skcipher.Spec, err error) {
	name, profile := s.cipher()
	if profile == "aead" {
		spec, err = skcipher.ParseAEAD(name)
	} else {
		spec, err = skcipher.Parse(name)
	}
	if err == nil && spec.Tagged() != (profile != "") {
		err = fmt.Errorf("%q with the integrity %q stores no tags; use one of both without the other", s.Encryption, s.Integrity)
	}
	spec.TagSize = spec.FullTag()
	return spec, err
}

// check sees that there is a cipher for a key of the segment.
func (s *Segment) check() error {
	spec, err := s.spec()
	if err == nil {
		err = spec.CheckKey(make([]byte, s.KeySize))
	}
	return err
}

// IntegrityLine returns the line of the integrity device between the disk and crypt, and its
// size in sectors. data is the disk with the data, device its name. It is for segments with
// Integrity.
func (c *Container) IntegrityLine(e env.Env, data blk.Device, device string) (*integrity.Line, uint64, error) {
	l, err := c.newIntegrityLine(device)
	if err != nil {
		return nil, 0, err
	}
	s, err := integrity.ReadSuperblock(e, data, l.Start)
	if err != nil {
		return nil, 0, fmt.Errorf("the data of %s: %w", device, err)
	}
	return l, s.Provided, nil
}

// newIntegrityLine returns a line that also formats an empty disk.
func (c *Container) newIntegrityLine(device string) (*integrity.Line, error) {
	s := &c.Header.Segment
	spec, err := s.spec()
	if err != nil {
		return nil, err
	}
	l := integrity.NewLine(dm.Place{Device: device, Start: s.Offset / blk.SectorSize})
	l.TagSize, l.BlockSize, l.FixPadding = spec.TagSize, s.SectorSize, true
	if slices.Contains(c.Header.Flags, "no-journal") {
		l.Mode = "D"
	}
	return l, nil
}

// FormatIntegrity prepares the data of a new disk with Integrity: it destroys an old superblock
// and returns the line of the integrity device that makes a new one when it is resumed. Sectors
// cannot be read before they have been written.
func (c *Container) FormatIntegrity(e env.Env, data blk.Device, device string) (*integrity.Line, error) {
	l, err := c.newIntegrityLine(device)
	if err == nil {
		err = blk.WriteSectors(e, data, make([]byte, 4096), l.Start, 0)
	}
	if err == nil {
		err = blk.FlushDevice(e, data)
	}
	return l, err
}

// taggedLine is the line for crypt on the integrity device, which has so many sectors.
func (c *Container) taggedLine(l *crypt.Line) (*crypt.Line, error) {
	spec, err := c.Header.Segment.spec()
	if err != nil {
		return nil, err
	}
	l.Cipher, l.Profile = c.Header.Segment.cipher()
	l.Integrity, l.Start = spec.TagSize, 0
	return l, nil
}
