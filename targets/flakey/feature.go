package flakey

import (
	"math"
	"strconv"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// parseFeatures reads "[COUNT FEATURE…]". As in the kernel, COUNT only says how
// many words there are at least, and a feature that is longer than what is left
// of it wraps the count.
func (f *flakey) parseFeatures(a *dm.Args) error {
	if a.Len() == 0 {
		return nil
	}
	n, err := a.Group(0, 6, "Invalid number of feature args")
	if err != nil {
		return err
	}
	for left := uint32(n); left > 0; {
		if a.Len() == 0 {
			return dm.Errorf(syscall.EINVAL, "Insufficient feature arguments")
		}
		words, err := f.parseFeature(a, left)
		if err != nil {
			return err
		}
		left -= words
	}
	if f.corrupt.write && (f.drop || f.fail) {
		return dm.Errorf(syscall.EINVAL, "%s is incompatible with corrupt_bio_byte with the WRITE flag set", f.features()[0])
	}
	return nil
}

// parseFeature reads one feature and tells how many words it had.
func (f *flakey) parseFeature(a *dm.Args, left uint32) (words uint32, err error) {
	switch name := a.Next(); strings.ToLower(name) {
	case "drop_writes":
		return 1, choose("drop_writes", &f.drop, "error_writes", f.fail)
	case "error_writes":
		return 1, choose("error_writes", &f.fail, "drop_writes", f.drop)
	case "corrupt_bio_byte":
		if left == 1 {
			return 0, dm.Errorf(syscall.EINVAL, "Feature corrupt_bio_byte requires parameters")
		}
		return 5, f.corrupt.parse(a)
	}
	return 0, dm.Errorf(syscall.EINVAL, "Unrecognised flakey feature requested")
}

// choose sets a feature that excludes itself and another.
func choose(name string, on *bool, otherName string, other bool) error {
	if *on {
		return dm.Errorf(syscall.EINVAL, "Feature %s duplicated", name)
	}
	if other {
		return dm.Errorf(syscall.EINVAL, "Feature %s conflicts with feature %s", name, otherName)
	}
	*on = true
	return nil
}

// corruption is the feature corrupt_bio_byte.
type corruption struct {
	nth   uint64 // from 1; 0: no corruption
	write bool   // of writes, not reads
	value byte
	flags uint32 // the kernel's bi_opf bits that an I/O must have
}

func (k *corruption) parse(a *dm.Args) error {
	var err error
	if k.nth, err = a.Number(1, math.MaxUint32, "Invalid corrupt bio byte"); err != nil {
		return err
	}
	switch strings.ToLower(a.Next()) {
	case "w":
		k.write = true
	case "r":
		k.write = false
	default:
		return dm.Errorf(syscall.EINVAL, "Invalid corrupt bio direction (r or w)")
	}
	value, err := a.Number(0, 255, "Invalid corrupt value to write into bio byte (0-255)")
	if err != nil {
		return err
	}
	flags, err := a.Number(0, math.MaxUint32, "Invalid corrupt bio flags mask")
	k.value, k.flags = byte(value), uint32(flags)
	return err
}

// features are the words that make the features again.
func (f *flakey) features() (words []string) {
	switch {
	case f.drop:
		words = append(words, "drop_writes")
	case f.fail:
		words = append(words, "error_writes")
	}
	k := &f.corrupt
	if k.nth == 0 {
		return words
	}
	dir := "r"
	if k.write {
		dir = "w"
	}
	return append(words, "corrupt_bio_byte", strconv.FormatUint(k.nth, 10), dir, strconv.Itoa(int(k.value)), strconv.FormatUint(uint64(k.flags), 10))
}

// bi_opf of Linux 6.1 (include/linux/blk_types.h): the op is in the low bits.
const (
	opWrite   = 1
	reqFUA    = 1 << 17
	reqRahead = 1 << 19
	reqNowait = 1 << 21
)

// matches reports whether c, which carries data, has all flags asked for.
func (k *corruption) matches(c *dm.Clone) bool {
	var opf uint32
	if c.Op == blk.Write {
		opf |= opWrite
	}
	if c.Flags&blk.FUA != 0 {
		opf |= reqFUA
	}
	if c.Flags&blk.Readahead != 0 {
		opf |= reqRahead
	}
	if c.Flags&blk.NoWait != 0 {
		opf |= reqNowait
	}
	return opf&k.flags == k.flags
}

// spoil overwrites the byte where c's data has it.
func (k *corruption) spoil(c *dm.Clone) {
	at := k.nth - 1
	for p := range c.Segments() {
		if at < uint64(len(p)) {
			p[at] = k.value
			return
		}
		at -= uint64(len(p))
	}
}

// writeOther has c write a spoiled copy of its data.
func (k *corruption) writeOther(c *dm.Clone) {
	p := make([]byte, c.Bytes())
	c.CopyOut(p)
	c.SetData(p)
	k.spoil(c)
}
