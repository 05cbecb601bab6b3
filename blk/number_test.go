package blk

import "testing"

func TestParseNumber(t *testing.T) {
	for s, want := range map[string]Number{"254:0": {254, 0}, "0:4294967295": {0, 4294967295}, "007:1": {7, 1}} {
		if n, ok := ParseNumber(s); !ok || n != want {
			t.Errorf("%q is %v, %v", s, n, ok)
		}
	}
	for _, s := range []string{"", ":", "1", "1:", ":1", "1:2:3", "1:2 ", "+1:2", "-1:2", "1:4294967296", "a:1", "1: 2", "1:2x"} {
		if n, ok := ParseNumber(s); ok {
			t.Errorf("%q is taken for %v", s, n)
		}
	}
}
