package luks

import (
	"crypto/pbkdf2"
	"fmt"
	"math"

	"golang.org/x/crypto/argon2"
)

// Limits bounds the cost of opening a header.
type Limits struct {
	Memory     uint64 // bytes that a key derivation uses
	Work       uint64 // memory times passes of argon2, in bytes
	Iterations uint64 // of pbkdf2
}

// DefaultLimits are far above cryptsetup's choices, which are 1 GiB and a few
// seconds.
var DefaultLimits = Limits{Memory: 2 << 30, Work: 64 << 30, Iterations: 1 << 28}

// KDF derives a key from a passphrase.
type KDF struct {
	Type       string `json:"type"` // "pbkdf2", "argon2i", "argon2id"
	Hash       string `json:"hash,omitempty"`
	Iterations uint64 `json:"iterations,omitempty"`
	Time       uint32 `json:"time,omitempty"`
	Memory     uint32 `json:"memory,omitempty"` // KiB
	CPUs       uint32 `json:"cpus,omitempty"`
	Salt       []byte `json:"salt"`
}

// check refuses invalid parameters and excessive costs.
func (k *KDF) check(l Limits) error {
	switch k.Type {
	case "pbkdf2":
		if k.Iterations == 0 {
			return fmt.Errorf("pbkdf2 without iterations; the header is damaged")
		}
		if k.Iterations > l.Iterations {
			return fmt.Errorf("the header asks for %d iterations of pbkdf2, more than the limit of %d", k.Iterations, l.Iterations)
		}
		_, err := findHash(k.Hash)
		return err
	case "argon2i", "argon2id":
		return k.checkArgon(l)
	}
	return fmt.Errorf("the key derivation %q is not supported", k.Type)
}

func (k *KDF) checkArgon(l Limits) error {
	memory := uint64(k.Memory) << 10
	switch {
	case k.Time == 0 || k.CPUs == 0 || k.CPUs > math.MaxUint8:
		return fmt.Errorf("%s with time %d and %d cpus; the header is damaged", k.Type, k.Time, k.CPUs)
	case memory > l.Memory:
		return fmt.Errorf("the header asks for %d MiB of memory for %s, more than the limit of %d MiB", memory>>20, k.Type, l.Memory>>20)
	case memory*uint64(k.Time) > l.Work:
		return fmt.Errorf("the header asks for %s to go through %d MiB %d times, more than the limit of %d GiB in all", k.Type, memory>>20, k.Time, l.Work>>30)
	}
	return nil
}

// derive derives size bytes of key from a passphrase.
func (k *KDF) derive(passphrase []byte, size int, l Limits) ([]byte, error) {
	if err := k.check(l); err != nil {
		return nil, err
	}
	switch k.Type {
	case "argon2i":
		return argon2.Key(passphrase, k.Salt, k.Time, k.Memory, uint8(k.CPUs), uint32(size)), nil
	case "argon2id":
		return argon2.IDKey(passphrase, k.Salt, k.Time, k.Memory, uint8(k.CPUs), uint32(size)), nil
	}
	h, err := findHash(k.Hash)
	if err != nil {
		return nil, err
	}
	return pbkdf2.Key(h, string(passphrase), k.Salt, int(k.Iterations), size)
}
