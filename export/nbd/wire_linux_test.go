package nbd

import (
	"errors"
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
			ws.look(func(*atomic.Int32, int32) { waits = true })
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
	}
}
