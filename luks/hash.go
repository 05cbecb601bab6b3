package luks

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/ripemd160" //lint:ignore SA1019 disks that are hashed with it exist
)

var hashes = map[string]func() hash.Hash{
	"sha1":        sha1.New,
	"sha224":      sha256.New224,
	"sha256":      sha256.New,
	"sha384":      sha512.New384,
	"sha512":      sha512.New,
	"sha3-256":    func() hash.Hash { return sha3.New256() },
	"sha3-512":    func() hash.Hash { return sha3.New512() },
	"ripemd160":   ripemd160.New,
	"blake2b-512": func() hash.Hash { h, _ := blake2b.New512(nil); return h }, // without a key there is no error
	"blake2s-256": func() hash.Hash { h, _ := blake2s.New256(nil); return h },
}

func findHash(name string) (func() hash.Hash, error) {
	h, ok := hashes[name]
	if !ok {
		return nil, fmt.Errorf("the hash %q is not supported; cryptsetup on Linux may support it", name)
	}
	return h, nil
}

// split makes stripes blocks of random data from which merge recovers the key, and of
// which every bit is needed.
func split(key []byte, stripes int, h func() hash.Hash, random []byte) []byte {
	out := make([]byte, len(key)*stripes)
	copy(out, random[:len(out)-len(key)])
	sum := folded(out, len(key), stripes, h)
	xor(out[len(out)-len(key):], key, sum)
	clear(sum)
	return out
}

// merge undoes split.
func merge(material []byte, size, stripes int, h func() hash.Hash) []byte {
	sum := folded(material, size, stripes, h)
	xor(sum, sum, material[size*(stripes-1):size*stripes])
	return sum
}

// folded adds and diffuses all stripes but the last one.
func folded(material []byte, size, stripes int, h func() hash.Hash) []byte {
	sum, d := make([]byte, size), h()
	for i := range stripes - 1 {
		xor(sum, sum, material[i*size:(i+1)*size])
		diffuse(sum, d)
	}
	return sum
}

// diffuse replaces each part of p, of the hash's size, by the hash of its index and
// content; the last part may be shorter.
func diffuse(p []byte, d hash.Hash) {
	var out []byte
	for i := uint32(0); len(p) > 0; i++ {
		n := min(len(p), d.Size())
		d.Reset()
		d.Write(binary.BigEndian.AppendUint32(nil, i))
		d.Write(p[:n])
		out = d.Sum(out[:0])
		copy(p[:n], out)
		p = p[n:]
	}
	clear(out)
}

func xor(dst, a, b []byte) {
	for i := range dst {
		dst[i] = a[i] ^ b[i]
	}
}
