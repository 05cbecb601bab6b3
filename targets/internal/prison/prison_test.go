package prison

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
)

func clones(n int) (cs []*dm.Clone) {
	for range n {
		cs = append(cs, &dm.Clone{})
	}
	return cs
}

func want(t *testing.T, l dm.CloneList, want ...*dm.Clone) {
	t.Helper()
	for i, w := range want {
		if got := l.Pop(); got != w {
			t.Fatalf("bio %d is %p, want %p", i, got, w)
		}
	}
	if !l.Empty() {
		t.Fatal("more bios than expected")
	}
}

var v0 = Block(true, 1, 0)

func TestHolderAndInmates(t *testing.T) {
	p, c := New(), clones(3)
	cell := p.Detain(v0, c[0])
	if cell == nil || cell.Holder != c[0] {
		t.Fatal("no cell for the first bio")
	}
	if p.Detain(v0, c[1]) != nil || p.Detain(v0, c[2]) != nil || p.Detain(v0, nil) != nil {
		t.Fatal("a second cell")
	}
	want(t, p.Release(cell), c...)
	cell = p.Detain(v0, c[0])
	p.Detain(v0, c[1])
	want(t, p.ReleaseNoHolder(cell), c[1])
	cell = p.Detain(v0, nil)
	p.Detain(v0, c[1])
	want(t, p.Release(cell), c[1])
}

func TestKeysThatDoNotMeet(t *testing.T) {
	p := New()
	keys := []Key{v0, Block(false, 1, 0), Block(true, 2, 0), Block(true, 1, 1), {5, 9, 1, true}, {9, 12, 1, true}, {5, 9, 2, true}, {5, 9, 1, false}}
	var cells []*Cell
	for _, k := range keys {
		c := p.Detain(k, nil)
		if c == nil {
			t.Fatalf("%v is taken", k)
		}
		cells = append(cells, c)
	}
	for _, c := range cells {
		p.Release(c)
	}
}

func TestRangesOverlap(t *testing.T) {
	for _, a := range []Key{{5, 6, 1, true}, {5, 9, 1, true}, {0, 1 << 40, 1, true}} {
		for _, b := range []Key{{5, 6, 1, true}, {4, 6, 1, true}, {0, 100, 1, true}} {
			p, c := New(), clones(2)
			cell := p.Detain(a, c[0])
			if p.Detain(b, c[1]) != nil {
				t.Fatalf("%v and %v do not meet", a, b)
			}
			want(t, p.Release(cell), c...)
			p.Release(p.Detain(b, nil))
		}
	}
}

func TestErrorEndsAll(t *testing.T) {
	p, c := New(), clones(3)
	n := 0
	for _, b := range c {
		b.End = func(b *blk.Bio) {
			if b.Status() == blk.NoSpace {
				n++
			}
		}
	}
	cell := p.Detain(v0, c[0])
	p.Detain(v0, c[1])
	p.Detain(v0, c[2])
	p.Error(cell, blk.NoSpace)
	if n != 3 {
		t.Fatalf("%d of 3 ended with the status", n)
	}
	if p.Detain(v0, nil) == nil {
		t.Fatal("still held")
	}
}

// Bios that come while the cell is released are in what the visitor sees, or
// get the next cell: none is lost and none comes twice.
func TestVisitReleaseLosesNobody(t *testing.T) {
	blktest.Leaks(t)
	for _, k := range []Key{v0, {0, 100, 1, true}} {
		p := New()
		var seen, sent, inCell atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 3000 {
					sent.Add(1)
					cell := p.Detain(Block(true, 1, rand.Uint64N(2)*(k.End-1)), &dm.Clone{})
					if cell == nil {
						continue
					}
					seen.Add(1)
					runtime.Gosched()
					count(p, cell, &seen)
				}
			})
		}
		wg.Go(func() {
			for range 3000 {
				if cell := p.Detain(k, nil); cell != nil {
					if inCell.Add(1) != 1 && k.wide() {
						t.Error("two holders of one range")
					}
					runtime.Gosched()
					inCell.Add(-1)
					count(p, cell, &seen)
				}
			}
		})
		wg.Wait()
		if seen.Load() != sent.Load() {
			t.Fatalf("%d bios sent, %d seen", sent.Load(), seen.Load())
		}
	}
}

func count(p *Prison, cell *Cell, seen *atomic.Int64) {
	p.VisitRelease(cell, func(c *Cell) {
		l := c.Inmates()
		for b := l.Pop(); b != nil; b = l.Pop() {
			seen.Add(1)
		}
	})
}

// A range excludes every block in it.
func TestModel(t *testing.T) {
	p := New()
	r := rand.New(rand.NewPCG(1, 2))
	held := map[*Cell]Key{}
	for range 20000 {
		if len(held) > 0 && r.IntN(2) == 0 {
			for c := range held {
				p.Release(c)
				delete(held, c)
				break
			}
			continue
		}
		b := r.Uint64N(50)
		k := Key{b, b + 1 + r.Uint64N(4)*r.Uint64N(10), uint32(r.IntN(2)), r.IntN(2) == 0}
		free := true
		for _, o := range held {
			free = free && !k.overlaps(o)
		}
		c := p.Detain(k, nil)
		if (c != nil) != free {
			t.Fatalf("%v: cell %v, but free is %v", k, c, free)
		}
		if c != nil {
			held[c] = k
		}
	}
}

func TestDetainDoesNotAllocate(t *testing.T) {
	p, c := New(), clones(1)
	if n := testing.AllocsPerRun(100, func() { p.ReleaseNoHolder(p.Detain(v0, c[0])) }); n > 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkDetainRelease(b *testing.B) {
	p, c := New(), clones(1)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		p.ReleaseNoHolder(p.Detain(Block(true, 1, i&1023), c[0]))
	}
}
