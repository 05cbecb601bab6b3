package skcipher

import (
	"slices"
	"testing"
)

// TestXTSNarrow: on processors with wide registers, the mode without them is the same.
func TestXTSNarrow(t *testing.T) {
	checkXTS(t, func(data, tweak []byte) mode {
		m, err := Spec{Cipher: "aes", Mode: "xts"}.newXTS(slices.Concat(data, tweak))
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := m.(*aesXTS); ok {
			a.wide = false
		}
		return m
	})
}
