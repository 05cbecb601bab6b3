package skcipher

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	barexts "golang.org/x/crypto/xts"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestXTSVectors: the published answers, whatever the length of the data unit.
func TestXTSVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/ieee1619.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		var key, plain, encrypted string
		var unit uint64
		if _, err := fmt.Sscanf(line, "%x %d %x %x", &key, &unit, &plain, &encrypted); err != nil {
			continue // the heading
		}
		n++
		m, err := Spec{Cipher: "aes", Mode: "xts"}.newMode([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		p, s := []byte(plain), new(scratch)
		plain64(nil, s, 0, unit)
		m.encrypt(p, s)
		if string(p) != encrypted {
			t.Errorf("%d: encrypted to %x", n, p)
		}
		clear(s.iv[:])
		plain64(nil, s, 0, unit)
		m.decrypt(p, s)
		if string(p) != plain {
			t.Errorf("%d: decrypted to %x", n, p)
		}
	}
	if n < 6 {
		t.Errorf("%d vectors", n)
	}
}

// TestXTSBesideAnother compares all sizes of sectors with golang.org/x/crypto/xts.
func TestXTSBesideAnother(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{512, 1024, 2048, 4096} {
		for _, large := range []bool{false, true} {
			key, p := random(rng, 32<<rng.IntN(2)), random(rng, 4096*4)
			c := mustNew(t, "aes-xts-plain64", key, size, large)
			x, err := barexts.NewCipher(aes.NewCipher, key)
			if err != nil {
				t.Fatal(err)
			}
			first := rng.Uint64N(1<<40) &^ 7
			want := bytes.Clone(p)
			for at := 0; at < len(want); at += size {
				n := first + uint64(at/512)
				if large {
					n /= uint64(size / 512)
				}
				x.Encrypt(want[at:at+size], want[at:at+size], n)
			}
			got := bytes.Clone(p)
			if c.Encrypt(got, first); !bytes.Equal(got, want) {
				t.Errorf("%d bytes, large %v: encrypts differently", size, large)
			}
			if c.Decrypt(got, first); !bytes.Equal(got, p) {
				t.Errorf("%d bytes, large %v: does not decrypt", size, large)
			}
		}
	}
}

// TestXTSInstructions: the mode with the processor's instructions is the one without them, for
// all keys, and all lengths around its strides.
func TestXTSInstructions(t *testing.T) {
	checkXTS(t, func(data, tweak []byte) mode {
		m, err := Spec{Cipher: "aes", Mode: "xts"}.newXTS(slices.Concat(data, tweak))
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

// checkXTS compares a mode with xts.
func checkXTS(t *testing.T, make func(data, tweak []byte) mode) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		for _, half := range []int{16, 24, 32} {
			data, tweak := random(rng, half), random(rng, half)
			m := make(data, tweak)
			first, _ := aes.NewCipher(data)
			second, _ := aes.NewCipher(tweak)
			plain := &xts{first, second}
			for blocks := range 70 {
				var s, other scratch
				copy(s.iv[:], random(rng, blockSize))
				other.iv = s.iv
				iv, p := s.iv, random(rng, blocks*blockSize)
				got, want := bytes.Clone(p), bytes.Clone(p)
				m.encrypt(got, &s)
				if plain.encrypt(want, &other); !bytes.Equal(got, want) {
					t.Fatalf("keys of %d bytes, %d blocks: encrypts differently", half, blocks)
				}
				s.iv = iv
				if m.decrypt(got, &s); !bytes.Equal(got, p) {
					t.Fatalf("keys of %d bytes, %d blocks: does not decrypt", half, blocks)
				}
			}
		}
	}
}

// TestCBCVector is NIST SP 800-38A, F.2.1 and F.2.5.
func TestCBCVector(t *testing.T) {
	plain := "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
	for key, want := range map[string]string{
		"2b7e151628aed2a6abf7158809cf4f3c":                                 "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b273bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7",
		"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4": "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
	} {
		m, err := Spec{Cipher: "aes", Mode: "cbc"}.newMode(unhex(t, key))
		if err != nil {
			t.Fatal(err)
		}
		s, p := new(scratch), unhex(t, plain)
		iv := unhex(t, "000102030405060708090a0b0c0d0e0f")
		copy(s.iv[:], iv)
		if m.encrypt(p, s); hex.EncodeToString(p) != want {
			t.Errorf("encrypted to %x", p)
		}
		copy(s.iv[:], iv)
		if m.decrypt(p, s); hex.EncodeToString(p) != plain {
			t.Errorf("decrypted to %x", p)
		}
	}
}

// TestVectors: what the vectors of sector 5 are, for eboiv and essiv by their definition.
func TestVectors(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	eboivWant := make([]byte, 16)
	eboivWant[0], eboivWant[1] = 0x00, 0x0a // 5 · 512
	block.Encrypt(eboivWant, eboivWant)
	for iv, want := range map[string]string{
		"plain":     "05000000000000000000000000000000",
		"plain64":   "05000000010000000000000000000000",
		"plain64be": "00000000000000000000000100000005",
		"benbi":     "000000000000000000000020000000a1",
		"null":      "00000000000000000000000000000000",
	} {
		c := mustNew(t, "aes-cbc-"+iv, key, 512, false)
		s := new(scratch)
		c.begin(s, 1<<32+5)
		if got := hex.EncodeToString(s.iv[:]); got != want {
			t.Errorf("%s: %s, want %s", iv, got, want)
		}
	}
	c := mustNew(t, "aes-cbc-eboiv", key, 512, false)
	s := new(scratch)
	c.begin(s, 5)
	if !bytes.Equal(s.iv[:], eboivWant) {
		t.Errorf("eboiv: %x, want %x", s.iv, eboivWant)
	}
}

// TestAllThere encrypts and decrypts by all specifications, and allocates nothing.
func TestAllThere(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{
		"aes-xts-plain64", "aes-xts-plain", "aes-xts-benbi", "aes-xts-essiv:sha256", "aes-xts-eboiv", "aes-cbc-essiv:sha256", "aes-cbc-null", "aes-cbc-eboiv",
		"aes:2-cbc-plain64", "aes:4-cbc-essiv:sha256", "aes-ecb", "twofish-xts-plain64", "twofish-cbc-essiv:sha256", "aes", "aes-plain", "capi:xts(aes)-plain64",
		"capi:cbc(twofish)-essiv:sha256", "xchacha12,aes-adiantum-plain64", "capi:adiantum(xchacha20,aes)-plain",
	} {
		spec, err := Parse(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		keySize := 32 * spec.Keys
		if spec.Mode == "xts" {
			keySize *= 2
		}
		c := mustNew(t, name, random(rng, keySize), 1024, true)
		p := random(rng, 8192)
		got := bytes.Clone(p)
		c.Encrypt(got, 8)
		for at := 0; at < len(p); at += 512 {
			if bytes.Equal(got[at:at+512], p[at:at+512]) {
				t.Errorf("%s: sector at %d is not encrypted", name, at)
			}
		}
		alone := bytes.Clone(p[1024:2048])
		if c.Encrypt(alone, 10); !bytes.Equal(alone, got[1024:2048]) {
			t.Errorf("%s: a sector alone is encrypted differently", name)
		}
		if c.Decrypt(got, 8); !bytes.Equal(got, p) {
			t.Errorf("%s: does not decrypt", name)
		}
		if n := testing.AllocsPerRun(20, func() { c.Encrypt(got, 8) }); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestRefuses(t *testing.T) {
	for name, want := range map[string]string{
		"aes:3-cbc-plain":       "Bad cipher key count specification",
		"aes:0-cbc-plain":       "Bad cipher key count specification",
		"cbc(aes)-plain":        "Bad cipher specification",
		"aes-cbc":               "IV mechanism required",
		"aes-cbc-foo":           "Invalid IV mode",
		"aes-cbc-essiv":         "Digest algorithm missing for ESSIV mode",
		"aes-cbc-essiv:md4":     "Error allocating crypto tfm: there is no hash \"md4\" for essiv; use sha256",
		"serpent-xts-plain64":   "Error allocating crypto tfm: there is no cipher \"serpent\"; use aes, twofish or cipher_null",
		"aes-lrw-benbi":         "Error allocating crypto tfm: there is no mode \"lrw\" of aes; use xts, cbc, ecb or xchacha12,aes-adiantum",
		"capi:aes-plain64":      "Error allocating crypto tfm: the kernel's name \"aes\" is none of MODE(CIPHER)",
		"aes-cbc-lmk":           "Invalid IV mode: vectors of lmk are those of other systems' formats, which udm does not have",
		"cipher_null-xts-plain": "Error allocating crypto tfm: there is no mode \"xts\" of cipher_null; use xts, cbc, ecb or xchacha12,aes-adiantum",
	} {
		if _, err := Parse(name); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// FuzzSpec: what is understood has a cipher for a key of some size, or says no.
func FuzzSpec(f *testing.F) {
	for _, seed := range []string{"aes-xts-plain64", "aes:64-cbc-essiv:sha256", "capi:xts(aes)-plain64", "capi:cbc(aes)-essiv:sha256", "cipher_null-ecb", "aes-plain", "a:1-b-c:d"} {
		f.Add(seed, 32)
	}
	f.Fuzz(func(t *testing.T, text string, size int) {
		spec, err := Parse(text)
		if err != nil || size < 0 || size > 8192 {
			return
		}
		c, err := spec.New(make([]byte, size), 512, false)
		if err != nil {
			return
		}
		p := make([]byte, 512)
		c.Encrypt(p, 77)
		if c.Decrypt(p, 77); !bytes.Equal(p, make([]byte, 512)) {
			t.Errorf("%s does not decrypt what it has encrypted", text)
		}
	})
}

func mustNew(t *testing.T, name string, key []byte, size int, large bool) *Sectors {
	t.Helper()
	s, err := Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.New(key, size, large)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func random(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}
