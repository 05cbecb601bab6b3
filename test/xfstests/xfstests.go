// Package xfstests runs tests of the project xfstests, which is fetched and built outside this
// repository (build.sh), on two disks, and compares what has come of them on one pair of disks
// and on another.
package xfstests

import (
	_ "embed"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Of a test binary that runs the tests.
var (
	folder = flag.String("xfstests", "", "folder of xfstests that were built: see test/xfstests/build.sh")
	only   = flag.String("xfstests-only", "", "tests to run, separated by commas; default test/xfstests/tests.txt")
)

// Kinds are the file systems.
var Kinds = []string{"ext4", "xfs"}

// DiskLen is the size in bytes that a disk should have.
const DiskLen = 1 << 30

// Asked reports whether there are tests to run: make test-xfstests has them.
func Asked() bool { return *folder != "" }

// Tests of the groups auto and quick that need no disk of a special kind.
//
//go:embed tests.txt
var tests string

func list() []string {
	if *only != "" {
		return strings.Split(*only, ",")
	}
	return strings.Fields(tests)
}

// Script is a shell script that makes a file system on the disk test and runs the tests on it and
// on the disk scratch, as root in a mount namespace of its own. It writes $OUT/log, and what
// tests say below $OUT/results.
func Script(kind, test, scratch string) string {
	return fmt.Sprintf(script, *folder, kind, test, scratch, strings.Join(list(), " "))
}

// The root file system may be read-only: what is written is in memory, or in $OUT.
const script = `set -eu
cd %s
mount -t tmpfs tmpfs /mnt
mkdir /mnt/test /mnt/scratch
mkdir -m 1777 /mnt/tmp
export FSTYP=%s TEST_DEV=%s SCRATCH_DEV=%s TEST_DIR=/mnt/test SCRATCH_MNT=/mnt/scratch RESULT_BASE=$OUT/results TMPDIR=/mnt/tmp
for file in passwd group; do cp /etc/$file /mnt/$file; done
for user in fsgqa fsgqa2 123456-fsgqa; do
	id=$((3000 + $(wc -l </mnt/passwd)))
	echo "$user:x:$id:$id::/mnt/tmp:/bin/bash" >>/mnt/passwd
	echo "$user:x:$id:" >>/mnt/group
done
for file in passwd group; do mount --bind /mnt/$file /etc/$file; done
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
mkfs.$FSTYP -q $TEST_DEV
./check %s >$OUT/log 2>&1 || true
`

// Compare fails the test for each of xfstests that passes on plain disks, whose log is plain,
// and not on udm's, whose log is ours; and if fewer than a hundred pass on both.
func Compare(t *testing.T, plain, ours string) {
	t.Helper()
	compare(t, list(), outcomes(plain), outcomes(ours))
}

func compare(t testing.TB, list []string, plain, ours map[string]string) {
	t.Helper()
	passed := 0
	for _, test := range list {
		if ours[test] == plain[test] {
			if ours[test] == "passed" {
				passed++
			}
			continue
		}
		t.Logf("%s: %q on plain disks, %q on udm's", test, plain[test], ours[test])
		if plain[test] == "passed" {
			t.Errorf("%s passes on plain disks only", test)
		}
	}
	t.Logf("%d of %d tests pass on both; plain disks: %s; udm's: %s", passed, len(list), tally(plain), tally(ours))
	if want := min(100, len(list)/2); passed < want {
		t.Errorf("only %d tests pass, want %d", passed, want)
	}
}

// tally counts outcomes, and names the tests that have failed.
func tally(all map[string]string) string {
	count := make(map[string]int)
	var failed []string
	for test, how := range all {
		count[how]++
		if how == "failed" {
			failed = append(failed, test)
		}
	}
	slices.Sort(failed)
	return fmt.Sprintf("%v, failed: %v", count, failed)
}

// outcomes reads how each test has ended: "passed", "failed" or "not run"; a test that the log
// does not come to has none. The list of failures at the end knows some that the line of a test
// does not tell.
func outcomes(log string) map[string]string {
	all := make(map[string]string)
	for line := range strings.Lines(log) {
		if failed, ok := strings.CutPrefix(line, "Failures:"); ok {
			for _, test := range strings.Fields(failed) {
				all[test] = "failed"
			}
			continue
		}
		test, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if how := outcome(rest); strings.HasPrefix(test, "generic/") && how != "" {
			all[test] = how
		}
	}
	return all
}

// outcome is what the line of a test tells behind its name: at the end the seconds that it took.
func outcome(rest string) string {
	switch words := strings.Fields(rest); {
	case strings.Contains(rest, "[not run]"):
		return "not run"
	case strings.Contains(rest, "mismatch"), strings.Contains(rest, "[failed"), strings.Contains(rest, "_check_"):
		return "failed"
	case len(words) > 0 && strings.HasSuffix(words[len(words)-1], "s"):
		return "passed"
	}
	return ""
}
