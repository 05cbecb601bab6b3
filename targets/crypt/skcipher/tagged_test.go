package skcipher

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"udm/internal/invariants"
)

// withTags are specifications with tags, and the bits of their keys.
var withTags = map[string]int{
	"capi:gcm(aes)-random": 128, "capi:gcm(aes)-plain64": 256, "capi:gcm(aes)-null": 192,
	"capi:rfc7539(chacha20,poly1305)-random": 256, "capi:rfc7539(chacha20,poly1305)-plain": 256,
	"capi:authenc(hmac(sha256),xts(aes))-plain64":  512 + 256,
	"capi:authenc(hmac(sha256),xts(aes))-random":   256 + 256,
	"capi:authenc(hmac(sha512),cbc(aes))-plain64":  256 + 512,
	"capi:authenc(hmac(sha1),cbc(twofish))-random": 128 + 160,
	"capi:authenc(hmac(sha1),cbc(aes))-eboiv":      128 + 160,
}

func mustTag(t *testing.T, name string, bits, size int) (*Sectors, int) {
	t.Helper()
	s, err := ParseAEAD(name)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	s.TagSize, s.Random = s.FullTag(), func(p []byte) {
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
	}
	c, err := s.New(random(rand.New(rand.NewPCG(8, 8)), bits/8), size, true)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return c, s.TagSize
}

// TestTags: what is sealed opens, allocates nothing, and does not open with another bit in the
// data, the tag or the place.
func TestTags(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for name, bits := range withTags {
		c, size := mustTag(t, name, bits, 1024)
		p, tags := random(rng, 4096), make([]byte, 4*size)
		sealed := bytes.Clone(p)
		c.Seal(sealed, tags, 108, 100)
		opens := func(sealed, tags []byte, offset uint64) bool {
			got := bytes.Clone(sealed)
			ok := c.Open(got, tags, offset+8, offset)
			if ok && !bytes.Equal(got, p[:len(got)]) {
				t.Errorf("%s: opens as something else", name)
			}
			return ok
		}
		if bytes.Contains(sealed, p[:16]) || !opens(sealed, tags, 100) || !opens(sealed[:1024], tags[:size], 100) {
			t.Errorf("%s: does not open", name)
		}
		if opens(sealed, tags, 102) {
			t.Errorf("%s: opens at another place", name)
		}
		for _, part := range [][]byte{sealed, tags} {
			for range 50 {
				bit := rng.IntN(8 * len(part))
				part[bit/8] ^= 1 << (bit % 8)
				if opens(sealed, tags, 100) {
					t.Errorf("%s: opens with bit %d of %d bytes changed", name, bit, len(part))
				}
				part[bit/8] ^= 1 << (bit % 8)
			}
		}
		if n := testing.AllocsPerRun(20, func() { c.Seal(sealed, tags, 108, 100); c.Open(sealed, tags, 108, 100) }); n >= 1 && !invariants.Enabled {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestTagsByDefinition computes what a sector and its tag are, step by step.
func TestTagsByDefinition(t *testing.T) {
	key := random(rand.New(rand.NewPCG(8, 8)), 96)
	p := random(rand.New(rand.NewPCG(1, 1)), 512)
	iv := binary.LittleEndian.AppendUint64(nil, 7)
	iv = append(iv, make([]byte, 8)...)

	c, size := mustTag(t, "capi:gcm(aes)-plain64", 256, 512)
	got, tag := bytes.Clone(p), make([]byte, size)
	c.Seal(got, tag, 7, 5)
	block, _ := aes.NewCipher(key[:32])
	gcm, _ := cipher.NewGCM(block)
	place := binary.LittleEndian.AppendUint64(nil, 5)
	want := gcm.Seal(nil, iv[:12], p, append(bytes.Clone(place), iv[:12]...))
	if !bytes.Equal(append(got, tag...), want) {
		t.Error("gcm seals differently")
	}

	c, size = mustTag(t, "capi:authenc(hmac(sha256),xts(aes))-plain64", 768, 512)
	got, tag = bytes.Clone(p), make([]byte, size)
	c.Seal(got, tag, 7, 5)
	data := bytes.Clone(p)
	mustNew(t, "aes-xts-plain64", key[:64], 512, false).Encrypt(data, 7)
	h := hmac.New(sha256.New, key[64:])
	h.Write(place)
	h.Write(iv)
	h.Write(data)
	if !bytes.Equal(got, data) || !bytes.Equal(tag, h.Sum(nil)) {
		t.Error("authenc seals differently")
	}
}

// TestStoredVectors: aes-xts-random keeps its vectors beside the sectors, and never uses one
// twice.
func TestStoredVectors(t *testing.T) {
	s, err := Parse("aes-xts-random")
	if err != nil {
		t.Fatal(err)
	}
	n := byte(0)
	s.TagSize, s.Random = 16, func(p []byte) { n++; p[0] = n }
	c, err := s.New(make([]byte, 64), 512, false)
	if err != nil {
		t.Fatal(err)
	}
	p, tags := make([]byte, 1024), make([]byte, 32)
	c.Seal(p, tags, 0, 0)
	if tags[0] != 1 || tags[16] != 2 || bytes.Equal(p[:512], p[512:]) {
		t.Errorf("vectors %x", tags)
	}
	if !c.Open(p, tags, 99, 99) || !bytes.Equal(p, make([]byte, 1024)) {
		t.Error("does not open")
	}
}
