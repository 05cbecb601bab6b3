package flakey

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "flakey".
type Line struct {
	dm.Place
	Up, Down uint32 // seconds

	// The features.
	DropWrites  bool
	ErrorWrites bool
	Corrupt     Corruption

	// Features of kernels from 6.5 on.
	ErrorReads  bool
	RandomRead  uint32 // chance that a read is corrupted, of Certain
	RandomWrite uint32 // and a write
}

// Certain is the chance of what happens always.
const Certain = 1000000000

// later reports whether the line needs a kernel after 6.4.
func (l *Line) later() bool { return l.ErrorReads || l.RandomRead > 0 || l.RandomWrite > 0 }

// all reports whether there are no features: all I/O fails.
func (l *Line) all() bool {
	return !l.DropWrites && !l.ErrorWrites && l.Corrupt.Nth == 0 && !l.later()
}

// isLater reports whether a word is a feature of later kernels. Without any, a line is
// held to the rules of 6.1.
func isLater(word string) bool {
	switch strings.ToLower(word) {
	case "error_reads", "random_read_corrupt", "random_write_corrupt":
		return true
	}
	return false
}

// Corruption is the feature corrupt_bio_byte.
type Corruption struct {
	Nth    uint64 // which byte, from 1 on; 0: no corruption
	Writes bool   // corrupts writes instead of reads
	Value  byte
	Flags  uint32 // the kernel's bi_opf bits that an I/O must have
}

// ParseLine parses the words of a table line.
func ParseLine(words []string) (*Line, error) {
	if len(words) < 4 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	p, err := dm.ParsePlace(words[0], words[1], "Invalid device sector")
	if err != nil {
		return nil, err
	}
	l := &Line{Place: p}
	a := dm.NewArgs(words[2:])
	if err = l.parseTimes(a); err == nil {
		most := uint64(6)
		if slices.ContainsFunc(words[4:], isLater) {
			most = 11
		}
		err = l.parseFeatures(a, most)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Line) parseTimes(a *dm.Args) error {
	up, err := a.Number(0, math.MaxUint32, "Invalid up interval")
	if err != nil {
		return err
	}
	down, err := a.Number(0, math.MaxUint32, "Invalid up interval")
	if err != nil {
		return err
	}
	l.Up, l.Down = uint32(up), uint32(down)
	switch {
	case l.Up+l.Down == 0:
		return dm.Errorf(syscall.EINVAL, "Total (up + down) interval is zero")
	case l.Up+l.Down < l.Up:
		return dm.Errorf(syscall.EINVAL, "Interval overflow")
	}
	return nil
}

// parseFeatures parses "[COUNT FEATURE…]". As in the kernel, COUNT is only a lower bound
// for the number of words, and a feature with more words than are left of COUNT wraps
// the count.
func (l *Line) parseFeatures(a *dm.Args, most uint64) error {
	if a.Len() == 0 {
		return nil
	}
	n, err := a.Group(0, most, "Invalid number of feature args")
	if err != nil {
		return err
	}
	for left := uint32(n); left > 0; {
		if a.Len() == 0 {
			return dm.Errorf(syscall.EINVAL, "Insufficient feature arguments")
		}
		words, err := l.parseFeature(a, left)
		if err != nil {
			return err
		}
		left -= words
	}
	return l.compatible()
}

// compatible checks that no I/O is to fail and be corrupted.
func (l *Line) compatible() error {
	writes, read := "", l.Corrupt.Nth > 0 && !l.Corrupt.Writes
	switch {
	case l.DropWrites:
		writes = "drop_writes"
	case l.ErrorWrites:
		writes = "error_writes"
	}
	switch {
	case writes != "" && l.Corrupt.Writes && !l.later():
		return dm.Errorf(syscall.EINVAL, "%s is incompatible with corrupt_bio_byte with the WRITE flag set", writes)
	case writes != "" && (l.Corrupt.Writes || l.RandomWrite > 0):
		return dm.Errorf(syscall.EINVAL, "%s is incompatible with random_write_corrupt or corrupt_bio_byte with the WRITE flag set", writes)
	case l.ErrorReads && (read || l.RandomRead > 0):
		return dm.Errorf(syscall.EINVAL, "error_reads is incompatible with random_read_corrupt or corrupt_bio_byte with the READ flag set")
	}
	return nil
}

// parseFeature parses one feature and returns how many words it had.
func (l *Line) parseFeature(a *dm.Args, left uint32) (words uint32, err error) {
	switch name := a.Next(); strings.ToLower(name) {
	case "drop_writes":
		return 1, choose("drop_writes", &l.DropWrites, "error_writes", l.ErrorWrites)
	case "error_writes":
		return 1, choose("error_writes", &l.ErrorWrites, "drop_writes", l.DropWrites)
	case "corrupt_bio_byte":
		if left == 1 {
			return 0, dm.Errorf(syscall.EINVAL, "Feature corrupt_bio_byte requires parameters")
		}
		return 5, l.Corrupt.parse(a)
	case "error_reads":
		return 1, choose("error_reads", &l.ErrorReads, "", false)
	case "random_read_corrupt":
		return 2, parseChance("random_read_corrupt", &l.RandomRead, a, left)
	case "random_write_corrupt":
		return 2, parseChance("random_write_corrupt", &l.RandomWrite, a, left)
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

func parseChance(name string, chance *uint32, a *dm.Args, left uint32) error {
	switch {
	case *chance > 0:
		return dm.Errorf(syscall.EINVAL, "Feature %s duplicated", name)
	case left == 1:
		return dm.Errorf(syscall.EINVAL, "Feature %s requires a parameter", name)
	}
	n, err := a.Number(0, Certain, "Invalid random corrupt argument")
	*chance = uint32(n)
	return err
}

func (k *Corruption) parse(a *dm.Args) error {
	var err error
	if k.Nth, err = a.Number(1, math.MaxUint32, "Invalid corrupt bio byte"); err != nil {
		return err
	}
	switch strings.ToLower(a.Next()) {
	case "w":
		k.Writes = true
	case "r":
		k.Writes = false
	default:
		return dm.Errorf(syscall.EINVAL, "Invalid corrupt bio direction (r or w)")
	}
	value, err := a.Number(0, 255, "Invalid corrupt value to write into bio byte (0-255)")
	if err != nil {
		return err
	}
	flags, err := a.Number(0, math.MaxUint32, "Invalid corrupt bio flags mask")
	k.Value, k.Flags = byte(value), uint32(flags)
	return err
}

// features returns the words from which parseFeatures makes the features again.
func (l *Line) features() (words []string) {
	if l.ErrorReads {
		words = append(words, "error_reads")
	}
	switch {
	case l.DropWrites:
		words = append(words, "drop_writes")
	case l.ErrorWrites:
		words = append(words, "error_writes")
	}
	if k := &l.Corrupt; k.Nth > 0 {
		dir := "r"
		if k.Writes {
			dir = "w"
		}
		words = append(words, "corrupt_bio_byte", strconv.FormatUint(k.Nth, 10), dir, strconv.Itoa(int(k.Value)), strconv.FormatUint(uint64(k.Flags), 10))
	}
	if l.RandomRead > 0 {
		words = append(words, "random_read_corrupt", strconv.FormatUint(uint64(l.RandomRead), 10))
	}
	if l.RandomWrite > 0 {
		words = append(words, "random_write_corrupt", strconv.FormatUint(uint64(l.RandomWrite), 10))
	}
	return words
}

func (l *Line) Target() string { return "flakey" }

// String has a blank after the number of feature words and after each of them, as the
// line of Linux 6.1 has, and none at its end if a feature of later kernels is there.
func (l *Line) String() string {
	words := l.features()
	if l.later() {
		return fmt.Sprintf("%v %d %d %d %s", l.Place, l.Up, l.Down, len(words), strings.Join(words, " "))
	}
	return fmt.Sprintf("%v %d %d %d %s", l.Place, l.Up, l.Down, len(words), strings.Join(append(words, ""), " "))
}

func (l *Line) Devices() []dm.DeviceWord { return []dm.DeviceWord{l.Word(dm.Plain)} }
