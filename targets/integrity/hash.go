package integrity

import (
	"crypto/hmac"
	"crypto/md5"  // disks that use it exist
	"crypto/sha1" // disks that use it exist
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"strings"
	"syscall"

	"udm/dm"
)

var plain = map[string]func() hash.Hash{
	"crc32c": func() hash.Hash { return littleEndian{crc32.New(crc32.MakeTable(crc32.Castagnoli))} },
	"crc32":  func() hash.Hash { return &rawCRC{} },
	"xxhash64": func() hash.Hash {
		h := &xxhash{}
		h.Reset()
		return h
	},
	"md5": md5.New, "sha1": sha1.New, "sha224": sha256.New224, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
}

// Algorithms returns the names of the supported hashes. hmac(…) also takes md5 and the other
// sizes of sha.
func Algorithms() []string {
	return []string{"crc32c", "crc32", "xxhash64", "sha1", "sha224", "sha256", "sha384", "sha512", "md5", "hmac(sha256)"}
}

// newHash returns the constructor of a hash such as sha256 or hmac(sha256). Its errors are
// those of the kernel for a table line; use is "internal hash" or "journal mac".
func newHash(use, name string, key []byte) (func() hash.Hash, error) {
	keyError := "Error setting " + use + " key"

	base, isMAC := strings.CutPrefix(name, "hmac(")
	base = strings.TrimSuffix(base, ")")
	fn, ok := plain[base]
	_, checksum := fn0(fn).(hash.Hash32)
	_, fast := fn0(fn).(*xxhash)
	switch {
	case !ok, isMAC && (checksum || fast):
		return nil, dm.Because(dm.Errorf(syscall.ENOENT, "udm has no hash %q; it has %v", name, Algorithms()), "Invalid "+use)
	case isMAC && len(key) == 0:
		return nil, dm.Errorf(dm.ENOKEY, "%s", keyError)
	case isMAC:
		return func() hash.Hash { return hmac.New(fn, key) }, nil
	case len(key) > 0 && !checksum && !fast:
		return nil, dm.Errorf(syscall.ENOSYS, "%s", keyError)
	case len(key) > 0:
		return nil, dm.Because(dm.Errorf(syscall.EINVAL, "udm does not support keyed checksums; leave out the key"), keyError)
	}
	return fn, nil
}

func fn0(fn func() hash.Hash) hash.Hash {
	if fn == nil {
		return nil
	}
	return fn()
}

// littleEndian is a checksum with little-endian output, as in the kernel.
type littleEndian struct{ hash.Hash32 }

func (l littleEndian) Sum(p []byte) []byte { return binary.LittleEndian.AppendUint32(p, l.Sum32()) }

// rawCRC is the kernel's "crc32": CRC-32 with initial value zero and no final inversion.
type rawCRC struct{ sum uint32 }

func (c *rawCRC) Write(p []byte) (int, error) {
	c.sum = ^crc32.Update(^c.sum, crc32.IEEETable, p)
	return len(p), nil
}
func (c *rawCRC) Sum(p []byte) []byte { return binary.LittleEndian.AppendUint32(p, c.sum) }
func (c *rawCRC) Sum32() uint32       { return c.sum }
func (c *rawCRC) Reset()              { c.sum = 0 }
func (c *rawCRC) Size() int           { return 4 }
func (c *rawCRC) BlockSize() int      { return 1 }

// tagger computes tags without allocating. It is not safe for concurrent use.
type tagger struct {
	hash   hash.Hash
	prefix []byte // the salt, if hashes include it, then the sector
	sum    []byte
	size   int // of a tag in bytes
}

// newTagger returns nil without a hash.
func newTagger(newHash func() hash.Hash, s *Superblock) *tagger {
	if newHash == nil {
		return nil
	}
	h := newHash()
	t := &tagger{hash: h, size: int(s.TagSize), sum: make([]byte, 0, max(h.Size(), int(s.TagSize)))}
	if s.Flags&flagHMAC != 0 {
		t.prefix = append(t.prefix, s.Salt[:]...)
	}
	t.prefix = append(t.prefix, make([]byte, 8)...)
	return t
}

// tag returns the tag of a block at a sector. The slice is valid until the next call.
func (t *tagger) tag(sector uint64, block []byte) []byte {
	binary.LittleEndian.PutUint64(t.prefix[len(t.prefix)-8:], sector)
	t.hash.Reset()
	t.hash.Write(t.prefix)
	t.hash.Write(block)
	t.sum = t.hash.Sum(t.sum[:0])
	for len(t.sum) < t.size {
		t.sum = append(t.sum, 0)
	}
	return t.sum[:t.size]
}

// parseKeyed parses "ALGORITHM[:KEY]", the value of a feature.
func parseKeyed(feature, value string) (Algorithm, error) {
	name, digits, _ := strings.Cut(value, ":")
	if _, err := hex.DecodeString(digits); err != nil {
		return Algorithm{}, dm.Errorf(syscall.EINVAL, "Invalid %s argument", feature)
	}
	return Algorithm{name, strings.ToLower(digits)}, nil
}
