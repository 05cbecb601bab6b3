package xfstests

import (
	"maps"
	"testing"
)

func TestOutcomes(t *testing.T) {
	got := outcomes(`FSTYP         -- ext4

generic/001         258s
generic/002 3s ...  4s
generic/003       [not run] this test needs a disk that udm is not
generic/004       - output mismatch (see /run/out/results/generic/004.out.bad)
    --- tests/generic/004.out	2026-11-30 12:42:52.000000000 +0000
generic/005 _check_dmesg: something found in dmesg (see /run/out/results/generic/005.dmesg)
generic/006         1s
generic/007
Ran: generic/001 generic/002
Not run: generic/003
Failures: generic/004 generic/005 generic/006
Failed 3 of 6 tests
`)
	want := map[string]string{"generic/001": "passed", "generic/002": "passed", "generic/003": "not run",
		"generic/004": "failed", "generic/005": "failed", "generic/006": "failed"}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// told is a test that counts its errors.
type told struct {
	testing.TB
	errors int
}

func (*told) Helper()                 {}
func (*told) Logf(string, ...any)     {}
func (t *told) Errorf(string, ...any) { t.errors++ }

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		plain, ours string
		want        int
	}{{"passed", "passed", 0}, {"failed", "failed", 1}, {"failed", "passed", 1}, {"passed", "failed", 2}, {"passed", "not run", 2}, {"passed", "", 2}} {
		list := []string{"generic/001", "generic/002"}
		rest := func(how string) map[string]string { return map[string]string{list[0]: how} }
		tb := new(told)
		if compare(tb, list, rest(c.plain), rest(c.ours)); tb.errors != c.want {
			t.Errorf("%+v: %d errors", c, tb.errors)
		}
	}
}
