package crypt

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/crypt/skcipher"
)

// Line is what a table says behind "crypt". It holds the key.
type Line struct {
	Cipher   string
	Key      string // hexadecimal digits, ":SIZE:TYPE:DESCRIPTION", or "-" for none
	IVOffset uint64 // added to a sector's number for its vector
	dm.Place

	AllowDiscards    bool
	SameCPUCrypt     bool
	SubmitFromCPUs   bool
	NoReadWorkqueue  bool
	NoWriteWorkqueue bool
	HighPriority     bool
	Integrity        int    // bytes of tags beside each sector; 0: none
	Profile          string // of the tags: "aead", or "none" for vectors only
	SectorSize       int    // bytes
	IVLargeSectors   bool
}

// sectors is how many sectors of the device are encrypted as one.
func (l *Line) sectors() uint64 { return uint64(l.SectorSize / blk.SectorSize) }

// ParseLine understands the words of a table. Beside an error about OFFSET, which
// the kernel finds when it has the device, it returns the rest.
func ParseLine(words []string) (*Line, error) {
	if len(words) < 5 {
		return nil, dm.Errorf(syscall.EINVAL, "Not enough arguments")
	}
	if _, err := keySize(words[1]); err != nil {
		return nil, dm.Errorf(syscall.EINVAL, "Cannot parse key size")
	}
	l := &Line{Cipher: words[0], SectorSize: blk.SectorSize}
	if err := l.parseFeatures(words[5:]); err != nil {
		return nil, err
	}
	if err := l.parseKey(words[1]); err != nil {
		return nil, err
	}
	var err error
	if l.IVOffset, err = dm.ParseUint(words[2], math.MaxUint64); err != nil || l.IVOffset%l.sectors() != 0 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid iv_offset sector")
	}
	l.Device = words[3]
	if l.Start, err = dm.ParseUint(words[4], math.MaxUint64); err != nil {
		return l, dm.Errorf(syscall.EINVAL, "Invalid device sector")
	}
	return l, nil
}

// parseKey sees that the cipher is one, and the key one of its keys, as far as the
// word itself is the key.
func (l *Line) parseKey(word string) error {
	spec, err := l.spec()
	if err != nil {
		return err
	}
	spec.TagSize = spec.FullTag()
	l.Key = word
	if strings.HasPrefix(word, ":") {
		return nil
	}
	k, err := decodeHex(word)
	defer clear(k)
	if err == nil {
		err = spec.CheckKey(k)
	}
	if err != nil {
		return dm.Because(err, "Error decoding and setting key")
	}
	if word != noKey {
		l.Key = hex.EncodeToString(k)
	}
	return nil
}

func (l *Line) parseFeatures(words []string) error {
	if len(words) == 0 {
		return nil
	}
	args := dm.NewArgs(words)
	n, err := args.Group(0, 8, "Invalid number of feature args")
	if err != nil {
		return err
	}
	for range n {
		if err := l.parseFeature(args.Next()); err != nil {
			return err
		}
	}
	return nil
}

// switches are the features that are there or not, in the order of the table.
func (l *Line) switches() []feature {
	return []feature{
		{"allow_discards", &l.AllowDiscards},
		{"same_cpu_crypt", &l.SameCPUCrypt},
		{"high_priority", &l.HighPriority},
		{"submit_from_crypt_cpus", &l.SubmitFromCPUs},
		{"no_read_workqueue", &l.NoReadWorkqueue},
		{"no_write_workqueue", &l.NoWriteWorkqueue},
		{"iv_large_sectors", &l.IVLargeSectors},
	}
}

type feature struct {
	name string
	on   *bool
}

func (l *Line) parseFeature(word string) error {
	for _, f := range l.switches() {
		if strings.EqualFold(word, f.name) {
			*f.on = true
			return nil
		}
	}
	if text, ok := strings.CutPrefix(word, "integrity:"); ok {
		return l.parseIntegrity(text)
	}
	if text, ok := strings.CutPrefix(word, "sector_size:"); ok {
		if n, err := dm.ParseUint(text, math.MaxUint64); err == nil {
			return l.setSectorSize(n)
		}
	}
	return dm.Errorf(syscall.EINVAL, "Invalid feature arguments")
}

// parseIntegrity reads "BYTES:PROFILE".
func (l *Line) parseIntegrity(text string) error {
	size, profile, ok := strings.Cut(text, ":")
	n, err := dm.ParseUint(size, math.MaxUint32)
	switch {
	case !ok || err != nil:
		return dm.Errorf(syscall.EINVAL, "Invalid feature arguments")
	case n == 0 || n > maxTag:
		return dm.Errorf(syscall.EINVAL, "Invalid integrity arguments")
	case !strings.EqualFold(profile, aead) && !strings.EqualFold(profile, "none"):
		return dm.Errorf(syscall.EINVAL, "Unknown integrity profile")
	}
	l.Integrity, l.Profile = int(n), profile
	return nil
}

const (
	maxTag = 480 // bytes
	aead   = "aead"
)

// spec is what the cipher's name says.
func (l *Line) spec() (s skcipher.Spec, err error) {
	if strings.EqualFold(l.Profile, aead) {
		return skcipher.ParseAEAD(l.Cipher)
	}
	return skcipher.Parse(l.Cipher)
}

func (l *Line) setSectorSize(n uint64) error {
	if n < blk.SectorSize || n > 4096 || n&(n-1) != 0 {
		return dm.Errorf(syscall.EINVAL, "Invalid feature value for sector_size")
	}
	l.SectorSize = int(n)
	return nil
}

func (l *Line) Target() string { return "crypt" }

// String is the line with its key.
func (l *Line) String() string {
	var features []string
	for _, f := range l.switches() {
		if f.on == &l.IVLargeSectors {
			features = append(features, l.sizes()...)
		}
		if *f.on {
			features = append(features, f.name)
		}
	}
	text := fmt.Sprintf("%s %s %d %v", dm.QuoteWord(l.Cipher), dm.QuoteWord(l.Key), l.IVOffset, l.Place)
	if len(features) > 0 {
		text += fmt.Sprintf(" %d %s", len(features), strings.Join(features, " "))
	}
	return text
}

// sizes are the features with a number.
func (l *Line) sizes() (features []string) {
	if l.Integrity > 0 {
		features = append(features, fmt.Sprintf("integrity:%d:%s", l.Integrity, l.Profile))
	}
	if l.SectorSize != blk.SectorSize {
		features = append(features, fmt.Sprintf("sector_size:%d", l.SectorSize))
	}
	return features
}

// WithoutKey implements [dm.KeyedLine]. The name of a key in a key store is no secret.
func (l *Line) WithoutKey() (words string, keyed bool) {
	keyed = l.Key != noKey && !strings.HasPrefix(l.Key, ":")
	hidden := *l
	if keyed {
		hidden.Key = strings.Repeat("0", len(l.Key))
	}
	return hidden.String(), keyed
}

func (l *Line) Devices() []dm.DeviceWord { return []dm.DeviceWord{l.Word(dm.Plain)} }
