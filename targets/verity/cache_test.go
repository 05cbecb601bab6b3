package verity

import (
	"math/rand/v2"
	"testing"

	"udm/env"
)

// TestCacheIsBounded uses more blocks than the cache holds, and checks that the cache
// returns the correct block and keeps one that is used all the time.
func TestCacheIsBounded(t *testing.T) {
	var c cache
	c.init(env.NewStepped(), maxCached/100)
	rng := rand.New(rand.NewPCG(1, 1))
	misses := 0
	for i := range 10000 {
		position := rng.Uint64N(1000)
		if i%2 == 0 {
			position = 5000
		}
		data := c.get(position)
		if data == nil {
			if data = c.begin(position); data != nil {
				t.Fatal("begin returned a block that was never loaded")
			}
			if i > 0 && position == 5000 {
				misses++
			}
			c.end(position, []byte{byte(position), byte(position >> 8)})
			continue
		}
		if data[0] != byte(position) || data[1] != byte(position>>8) {
			t.Fatalf("wrong block at %d", position)
		}
		if n := len(c.entries); n > c.limit {
			t.Fatalf("%d blocks, want at most %d", n, c.limit)
		}
	}
	if misses > 0 {
		t.Errorf("a block that is used all the time was dropped %d times", misses)
	}
	if c.begin(7777) != nil {
		t.Fatal("begin returned a block that was never loaded")
	}
	c.end(7777, nil)
	if c.get(7777) != nil {
		t.Error("the cache has a block that failed to load")
	}
}
