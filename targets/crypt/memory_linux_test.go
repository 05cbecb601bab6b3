package crypt_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"udm/dm"
	"udm/targets/crypt/skcipher"
	"udm/targets/internal/targettest"
)

// The key of FIPS 197, A.1, and its last round key d014f9a8c9ee2589e13f0cc8b6630ca6, which is
// inverted so that the test does not find itself.
const (
	fipsKey = "2b7e151628aed2a6abf7158809cf4f3c"
	low     = 0x8925eec9a8f914d0 ^ math.MaxUint64
	high    = 0xa60c63b6c80c3fe1 ^ math.MaxUint64
)

// lastRoundInMemory reports whether this process's memory has the round key, at a multiple of its
// length.
func lastRoundInMemory(t *testing.T) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	p := make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if _, err := fmt.Sscanf(line, "%x-%x rw", &from, &to); err != nil {
			continue
		}
		for ; from < to; from += int64(len(p)) {
			n, _ := memory.ReadAt(p[:min(to-from, int64(len(p)))], from) // pages that are gone have nothing
			found := false
			for q := p[:n]; len(q) >= 16; q = q[16:] {
				found = found || ^binary.LittleEndian.Uint64(q) == low && ^binary.LittleEndian.Uint64(q[8:]) == high
			}
			if clear(p); found {
				return true
			}
		}
	}
	return false
}

// TestRoundKeysAreWiped looks at the memory of this process for what AES-XTS makes of a key.
func TestRoundKeysAreWiped(t *testing.T) {
	spec, err := skcipher.Parse("aes-xts-plain64")
	if _, writing := spec.Alone(); err != nil || writing <= 8<<10 {
		return // there are no instructions, and crypto/aes has the round keys
	}
	const other = "000102030405060708090a0b0c0d0e0f"
	for name, drop := range map[string]func(*targettest.Rig, *dm.Device){
		"wiped":    func(r *targettest.Rig, d *dm.Device) { r.Message(d, "key wipe", "", 0) },
		"replaced": func(r *targettest.Rig, d *dm.Device) { r.Message(d, "key set "+other+other, "", 0) },
		"closed":   func(r *targettest.Rig, d *dm.Device) { r.Swap(d, "0 64 linear a 0") },
	} {
		r := targettest.New(t, types)
		d := r.Device("x", table(64, "aes-xts-plain64", fipsKey+other, "0 a 0"))
		if !lastRoundInMemory(t) {
			t.Fatal("the round key is nowhere")
		}
		r.Suspend(d, false)
		if drop(r, d); lastRoundInMemory(t) {
			t.Errorf("%s: the round key is still in memory", name)
		}
	}
}
