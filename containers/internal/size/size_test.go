package size

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]uint64{"1": 1, "4K": 4 << 10, "4Ki": 4 << 10, "3M": 3 << 20, "10Gi": 10 << 30, "2T": 2 << 40} {
		if n, err := Parse(text); err != nil || n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "1i", "K", "1X", "1.5G", "9999999999T", "1KK"} {
		if n, err := Parse(text); err == nil {
			t.Errorf("%q is %d", text, n)
		}
	}
}
