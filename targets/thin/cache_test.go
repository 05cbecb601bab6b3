package thin

import (
	"math/rand/v2"
	"testing"

	"udm/targets/thin/thinmeta"
)

// look is what a reader of the cache does.
func (c *cache) look(block uint64) (m thinmeta.Mapping, ok bool) {
	word, tag := c.table.Load().at(block)
	w := word.Load()
	return thinmeta.Mapping{Block: w & (1<<dataBits - 1), Shared: w&sharedBit != 0}, match(w, tag)
}

func TestCacheNeverLies(t *testing.T) {
	var all budget
	all.setDefaults()
	var c cache
	c.init(&all)
	r := rand.New(rand.NewPCG(1, 1))
	model := map[uint64]thinmeta.Mapping{}
	hits := 0
	for range 200000 {
		b := r.Uint64N(3000)
		if r.IntN(4) == 0 {
			b |= r.Uint64N(1<<24) << 14 // far away, or too far to be cached
		}
		switch r.IntN(1000) {
		case 0:
			c.clear()
			clear(model)
		case 1, 2, 3, 4, 5:
			n := r.Uint64N(100)
			c.erase(b, b+n)
			for i := range n {
				delete(model, b+i)
			}
		default:
			if m, ok := c.look(b); ok {
				hits++
				if m != model[b] {
					t.Fatalf("block %d: %v, want %v", b, m, model[b])
				}
				continue
			}
			m := thinmeta.Mapping{Block: r.Uint64N(1 << dataBits), Shared: r.IntN(3) == 0}
			model[b] = m
			c.fill(c.table.Load(), b, m)
		}
	}
	if hits < 20000 || all.words.Load() > all.most {
		t.Errorf("%d hits, %d words", hits, all.words.Load())
	}
	if c.drop(); all.words.Load() != 0 {
		t.Errorf("%d words left", all.words.Load())
	}
}

func TestCacheGrowsAsFarAsThePoolAllows(t *testing.T) {
	var all budget
	all.setDefaults()
	if testing.Short() {
		all.most, all.largest = all.most>>6, all.largest-6
	}
	var a, b cache
	a.init(&all)
	b.init(&all)
	n := uint64(1) << all.largest
	for i := range 2 * n {
		a.fill(a.table.Load(), i, thinmeta.Mapping{Block: i})
	}
	if got := uint64(len(a.table.Load().words)); got != n {
		t.Errorf("%d words", got)
	}
	for i := range 2 * n {
		b.fill(b.table.Load(), i, thinmeta.Mapping{Block: i})
	}
	if got := all.words.Load(); got > all.most || got < int64(n) {
		t.Errorf("%d words in all", got)
	}
	if _, ok := b.look(2*n - 1); !ok {
		t.Error("the second cache is of no use")
	}
}

// An entry that was looked up before the table was replaced does not return.
func TestFillOfAnOldTableIsNotSeen(t *testing.T) {
	var all budget
	all.setDefaults()
	var c cache
	c.init(&all)
	c.fill(c.table.Load(), 1, thinmeta.Mapping{}) // grows
	c.fill(c.table.Load(), 1, thinmeta.Mapping{Block: 7})
	if m, ok := c.look(1); !ok || m.Block != 7 {
		t.Fatal("not filled")
	}
	old := c.table.Load()
	c.clear()
	c.fill(old, 1, thinmeta.Mapping{Block: 7})
	if _, ok := c.look(1); ok {
		t.Fatal("a mapping of the old table is seen")
	}
}
