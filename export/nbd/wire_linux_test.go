package nbd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// A thread that waits at a socket is known, whether it began to before note or after it, and is
// interrupted without looking at all threads.
func TestNotedThreadsAreInterrupted(t *testing.T) {
	for _, first := range []bool{true, false} {
		ours, theirs, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		s := newSock(ours, time.Minute).(*sock)
		defer s.close()
		ended := make(chan error, 1)
		read := func() {
			_, err := s.read(make([]byte, 1), false)
			ended <- err
		}
		ws := waiters{s}
		if !first {
			ws.note()
		}
		go read()
		for waits := false; !waits; {
			ws.look(func(of *atomic.Int32, _ int32) { waits = waits || of != nil })
		}
		if first {
			ws.note()
		}
		s.pause()
		for err = nil; err == nil; {
			ws.interrupt(0)
			select {
			case err = <-ended:
			default:
			}
		}
		if !errors.Is(err, errPaused) || s.reader.Load() != 0 && !first {
			t.Errorf("%v, and thread %d is noted", err, s.reader.Load())
		}
		if s.goOn(); s.noted.Load() || s.paused.Load() {
			t.Error("after a move that was called off threads still note that they wait")
		}
	}
}

// A thread that the kernel does not tell about may wait at a socket: it is interrupted, too.
func TestUnknownThreadsAreInterrupted(t *testing.T) {
	defer func(old string) { threadDir = old }(threadDir)
	threadDir = t.TempDir()
	if err := os.Mkdir(filepath.Join(threadDir, "17"), 0o700); err != nil {
		t.Fatal(err)
	}
	var threads []int32
	ws := waiters{&sock{}}
	ws.look(func(of *atomic.Int32, thread int32) {
		if of == nil {
			threads = append(threads, thread)
		}
	})
	if !slices.Equal(threads, []int32{17}) {
		t.Errorf("the threads %v are found, want 17", threads)
	}
	ws.note() // has nowhere to note it
}
