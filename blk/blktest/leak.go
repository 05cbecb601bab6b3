package blktest

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// Leaks fails the test at its end when goroutines run that did not run now. It
// is for tests that do not run in parallel with others. Call it first, so that
// its check comes after the cleanups of the test.
//
// A goroutine that has been told to end may need a moment for its last
// instructions, of which nobody is told: the check gives it up to two seconds.
func Leaks(t testing.TB) {
	before := goroutines()
	t.Cleanup(func() {
		for end := time.Now().Add(2 * time.Second); ; runtime.Gosched() {
			left := leaked(before)
			if len(left) == 0 {
				return
			}
			if time.Now().After(end) {
				t.Errorf("%d goroutines leaked:\n%s", len(left), strings.Join(left, "\n\n"))
				return
			}
		}
	})
}

func leaked(before map[string]string) (stacks []string) {
	for id, stack := range goroutines() {
		if _, ok := before[id]; !ok {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// goroutines maps the "goroutine 12" of each goroutine to its stack, leaving
// out the runtime's own, which come and go.
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
