package blktest

import (
	"runtime"
	"strings"
	"testing"
)

// Leaks fails the test at its end if goroutines run that do not run now. It is
// for tests that do not run in parallel with others. Call it first, so that its
// check runs after the cleanups of the test.
//
// A goroutine that is ending may need a moment for its last instructions, so the
// check repeats. It counts attempts, not time, since on a busy machine both
// goroutines wait for a processor.
func Leaks(t testing.TB) {
	before := goroutines()
	t.Cleanup(func() {
		var left []string
		for range patience {
			if left = leaked(before); len(left) == 0 {
				return
			}
			runtime.Gosched()
		}
		t.Errorf("%d goroutines leaked:\n%s", len(left), strings.Join(left, "\n\n"))
	})
}

// patience is the number of attempts: more than a second of processor time.
var patience = 20_000

func leaked(before map[string]string) (stacks []string) {
	for id, stack := range goroutines() {
		if _, ok := before[id]; !ok {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// goroutines maps the "goroutine 12" of each goroutine to its stack. It omits
// those of the testing package, which come and go.
func goroutines() map[string]string {
	buf := make([]byte, 1<<16)
	for n := runtime.Stack(buf, true); ; n = runtime.Stack(buf, true) {
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	m := make(map[string]string)
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if id, _, ok := strings.Cut(g, " ["); ok && !strings.Contains(g, "testing.(*T).Run") {
			m[id] = g
		}
	}
	return m
}
