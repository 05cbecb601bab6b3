package parallel

import (
	"runtime"
	"sync/atomic"
	"testing"

	"udm/dm"
	"udm/env"
)

// TestWaitersGetATurn: on one processor, whoever waits for a clone goes on before all others have
// had their turn.
func TestWaitersGetATurn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const clones = 1000
	var handled atomic.Int64
	first, turn := make(chan struct{}), make(chan int64)
	var q Queue
	q.Init(env.Real(), "test", 1, func() func(*dm.Clone) {
		return func(*dm.Clone) {
			if handled.Add(1) == 1 {
				close(first)
			}
		}
	})
	go func() {
		<-first
		turn <- handled.Load()
	}()
	for range clones {
		q.Push(new(dm.Clone))
	}
	if n := <-turn; n == clones {
		t.Errorf("all of %d clones were handled first", clones)
	}
	q.Close()
}
