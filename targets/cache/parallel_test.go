package cache_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

// TestThreads has each of several threads write and read blocks of its own, which come
// into the cache and leave it, while the cache is suspended, resumed and given other
// modes.
func TestThreads(t *testing.T) {
	const threads = 4
	rounds := 400
	if testing.Short() {
		rounds = 100
	}
	w := newWorld(t, tables["writeback"])
	w.must(w.start(env.Real()))
	var wg sync.WaitGroup
	for id := range uint64(threads) {
		wg.Go(func() {
			for i := range uint64(rounds) {
				b := (id + i%(originBlocks/threads)*threads) * bs
				seed := 1 + id + i*threads
				at, n := b+i%8*8, uint64(8)
				if i%3 == 0 {
					at, n = b, bs
				}
				p := blktest.Pattern(at, n, seed)
				if err := blk.WriteSectors(w.env, w.h, p, at, 0); err != nil {
					t.Errorf("write %d+%d: %v", at, n, err)
				}
				for range 3 {
					if err := blk.ReadSectors(w.env, w.h, p, at); err != nil {
						t.Errorf("read %d+%d: %v", at, n, err)
					} else if err := blktest.Check(p, at, seed); err != nil {
						t.Error(err)
					}
				}
				if i%16 == 0 {
					if err := blk.FlushDevice(w.env, w.h); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for i := range rounds / 20 {
			mode := []string{"writeback", "writethrough"}[i%2]
			policy := []string{"smq", "cleaner", "mq"}[i%3]
			if err := w.load(tableOf(fmt.Sprintf("2 metadata2 %s %s 0", mode, policy))); err != nil {
				t.Error(err)
			}
			if err := w.dev.Suspend(context.Background(), i%2 == 0); err != nil {
				t.Error(err)
			}
			if err := w.dev.Resume(context.Background(), false); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	w.close()
	w.check(env.Real())
}
