package hashtree

import (
	"crypto/md5"  // disks that use it exist
	"crypto/sha1" // disks that use it exist
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"hash"
	"slices"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/ripemd160" //lint:ignore SA1019 disks that use it exist

	"udm/blk"
)

// algorithm is a hash function and its name in tables.
type algorithm struct {
	name string
	new  func() hash.Hash
}

var algorithms = []algorithm{
	{"sha256", sha256.New},
	{"sha1", sha1.New},
	{"sha224", sha256.New224},
	{"sha384", sha512.New384},
	{"sha512", sha512.New},
	{"sha3-224", func() hash.Hash { return sha3.New224() }},
	{"sha3-256", func() hash.Hash { return sha3.New256() }},
	{"sha3-384", func() hash.Hash { return sha3.New384() }},
	{"sha3-512", func() hash.Hash { return sha3.New512() }},
	{"blake2b-160", blake(20)},
	{"blake2b-256", blake(32)},
	{"blake2b-384", blake(48)},
	{"blake2b-512", blake(64)},
	{"rmd160", ripemd160.New},
	{"md5", md5.New},
}

func blake(size int) func() hash.Hash {
	return func() hash.Hash {
		h, err := blake2b.New(size, nil)
		if err != nil {
			panic(err) // blake2b accepts all sizes up to 64
		}
		return h
	}
}

// Algorithms returns the names of the supported hash functions.
func Algorithms() (names []string) {
	for _, a := range algorithms {
		names = append(names, a.name)
	}
	return names
}

func find(name string) (algorithm, bool) {
	i := slices.IndexFunc(algorithms, func(a algorithm) bool { return a.name == name })
	if i < 0 {
		return algorithm{}, false
	}
	return algorithms[i], true
}

// Hasher hashes blocks with the salt of a tree. Hashing does not allocate. A Hasher is
// not safe for concurrent use.
type Hasher struct {
	hash hash.Hash
	tree *Tree
	sum  []byte
}

// NewHasher returns a hasher for the tree's blocks.
func (t *Tree) NewHasher() *Hasher {
	return &Hasher{t.algorithm.new(), t, make([]byte, 0, t.DigestSize)}
}

// Sum returns the hash of a block. The slice is valid until the next call.
func (h *Hasher) Sum(block []byte) []byte {
	h.begin()
	h.hash.Write(block)
	return h.end()
}

// SumBio returns the hash of the data of a bio, which are one block. The slice is valid
// until the next call.
func (h *Hasher) SumBio(b *blk.Bio) []byte {
	if p, ok := b.Contiguous(); ok {
		return h.Sum(p)
	}
	h.begin()
	for p := range b.Segments() {
		h.hash.Write(p)
	}
	return h.end()
}

func (h *Hasher) begin() {
	h.hash.Reset()
	if h.tree.Version > 0 {
		h.hash.Write(h.tree.Salt)
	}
}

func (h *Hasher) end() []byte {
	if h.tree.Version == 0 {
		h.hash.Write(h.tree.Salt)
	}
	h.sum = h.hash.Sum(h.sum[:0])
	return h.sum
}
