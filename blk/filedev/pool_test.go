package filedev

import (
	"sync"
	"testing"
	"testing/synctest"

	"udm/blk"
)

// gated makes a pool whose work blocks until the test sends to release.
func gated(busy, queue int) (p *pool, release chan blk.Status) {
	release = make(chan blk.Status)
	return newPool(busy, queue, func(*blk.Bio) blk.Status { return <-release }), release
}

func TestSubmitBlocksInOrderWhenTheQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, release := gated(2, 3)
		var mu sync.Mutex
		var accepted, ended []uint64
		for i := range uint64(8) {
			b := &blk.Bio{Sector: i, End: func(b *blk.Bio) {
				mu.Lock()
				ended = append(ended, b.Sector)
				mu.Unlock()
			}}
			go func() {
				p.submit(b)
				mu.Lock()
				accepted = append(accepted, i)
				mu.Unlock()
			}()
			synctest.Wait()
		}
		// Two bios are running, three wait in the queue.
		want := 5
		for n := 0; ; n++ {
			mu.Lock()
			if len(accepted) != min(want, 8) || len(ended) != n || p.live > 2 {
				t.Fatalf("accepted %v, ended %v, %d goroutines", accepted, ended, p.live)
			}
			mu.Unlock()
			if n == 8 {
				break
			}
			var st blk.Status
			b := &blk.Bio{Flags: blk.NoWait, End: func(b *blk.Bio) { st = b.Status() }}
			if n < 3 {
				if p.submit(b); st != blk.WouldBlock {
					t.Fatal("a NoWait bio was queued behind others")
				}
			}
			release <- blk.OK
			want++
			synctest.Wait()
		}
		for i, s := range accepted {
			if s != uint64(i) {
				t.Fatalf("accepted in the order %v", accepted)
			}
		}
		p.close()
		if p.live != 0 {
			t.Fatal("goroutines stay")
		}
	})
}

// An End may submit to the full queue that its own goroutine serves.
func TestEndMaySubmitToAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chains, length = 6, 5
		p, release := gated(1, 1)
		ends := make(chan bool, chains*length)
		var next func(n int) *blk.Bio
		next = func(n int) *blk.Bio {
			return &blk.Bio{End: func(*blk.Bio) {
				ends <- true
				if n > 1 {
					p.submit(next(n - 1))
				}
			}}
		}
		for range chains {
			go func() { p.submit(next(length)) }()
		}
		for range chains * length {
			synctest.Wait()
			release <- blk.OK
			<-ends
		}
		synctest.Wait()
		p.close()
	})
}

func TestCloseWaitsForThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, release := gated(1, 10)
		ended := 0
		for range 3 {
			p.submit(&blk.Bio{End: func(*blk.Bio) { ended++ }})
		}
		closed := false
		go func() { p.close(); closed = true }()
		for range 3 {
			synctest.Wait()
			if closed {
				t.Fatal("closed too early")
			}
			release <- blk.OK
		}
		synctest.Wait()
		if !closed || ended != 3 {
			t.Fatalf("closed %v, %d ended", closed, ended)
		}
	})
}
