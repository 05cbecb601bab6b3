package verity

import (
	"math/rand/v2"
	"testing"

	"udm/env"
)

// TestCacheIsBounded goes through more blocks than the cache holds. What it holds is
// right, and what is used all the time stays.
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
		data := c.look(position)
		if data == nil {
			if data = c.begin(position); data != nil {
				t.Fatal("there all at once")
			}
			if i > 0 && position == 5000 {
				misses++
			}
			c.end(position, []byte{byte(position), byte(position >> 8)})
			continue
		}
		if data[0] != byte(position) || data[1] != byte(position>>8) {
			t.Fatalf("another block at %d", position)
		}
		if n := len(c.entries); n > c.most {
			t.Fatalf("%d blocks, at most %d", n, c.most)
		}
	}
	if misses > 0 {
		t.Errorf("a block that is used all the time was dropped %d times", misses)
	}
	if c.begin(7777) != nil {
		t.Fatal("there all at once")
	}
	c.end(7777, nil)
	if c.look(7777) != nil {
		t.Error("what failed to load is there")
	}
}
