package smq

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// sound checks that each entry is where its state says.
func sound(t *testing.T, p *Policy) {
	t.Helper()
	in := map[int32]string{}
	count := 0
	for name, q := range map[string]*queue{"clean": &p.clean, "dirty": &p.dirty, "hotspot": &p.hotspot} {
		n := 0
		for l := range q.qs {
			for i, last := q.qs[l].head, none; i != none; last, i = i, p.es[i].next {
				e := &p.es[i]
				if in[i] != "" || int(e.level) != l || e.prev != last {
					t.Fatalf("entry %d of %s, level %d of %d, is also in %q or not linked", i, name, e.level, l, in[i])
				}
				in[i] = name
				if !e.sentinel {
					n++
				}
			}
		}
		if n != q.n {
			t.Fatalf("%s has %d entries and counts %d", name, n, q.n)
		}
	}
	for cb := range p.size {
		i := p.index(cb)
		e := &p.es[i]
		want := ""
		if e.allocated {
			count++
		}
		if e.allocated && !e.pending {
			want = map[bool]string{true: "dirty", false: "clean"}[e.dirty]
		}
		if in[i] != want {
			t.Fatalf("block %d is in %q, want %q", cb, in[i], want)
		}
		if _, mapped := p.Mapped(cb); mapped != (e.allocated && p.table.find(e.oblock) == i) {
			t.Fatalf("block %d", cb)
		}
	}
	if count != p.blocks.used {
		t.Fatalf("%d blocks are in use, counted %d", count, p.blocks.used)
	}
}

// history does random things and returns all decisions.
func history(t *testing.T, seed uint64) (out string) {
	r := rand.New(rand.NewPCG(seed, 2))
	now := time.Duration(0)
	p := New(Options{Blocks: 40, OriginSectors: 300 * 64, BlockSectors: 64, Cleaner: r.IntN(6) == 0, NoMigrations: r.IntN(6) == 0})
	for cb := range uint32(r.IntN(20)) {
		p.Load(uint64(cb)*7, cb, r.IntN(2) == 0, uint32(r.IntN(80)), r.IntN(2) == 0)
	}
	at := map[uint64]uint32{} // what is in the cache according to the answers
	for cb := range p.size {
		if ob, ok := p.Mapped(cb); ok {
			at[ob] = cb
		}
	}
	var works []Work
	for range 3000 {
		switch ob := uint64(r.IntN(300) * r.IntN(300) / 300); r.IntN(12) {
		case 0:
			now += time.Duration(r.IntN(20)) * time.Second
			p.Tick(now)
		case 1, 2:
			if w, ok := p.Next(r.IntN(2) == 0); ok {
				works = append(works, w)
			}
		case 3, 4:
			if len(works) > 0 {
				w := works[0]
				works = works[1:]
				success := r.IntN(8) > 0
				p.Complete(w, success)
				out += fmt.Sprintln(w, success)
				if success && w.Op == Promote {
					at[w.OBlock] = w.CBlock
				} else if success && w.Op == Demote {
					delete(at, w.OBlock)
				}
			}
		case 5:
			if cb, ok := at[ob]; ok {
				p.SetDirty(cb, r.IntN(2) == 0)
			}
		case 6:
			if cb, ok := at[ob]; ok && r.IntN(20) == 0 && p.Invalidate(cb) {
				delete(at, ob)
			}
		default:
			cb, hit, start, _ := p.Lookup(ob, r.IntN(2) == 0, r.IntN(4) == 0)
			if want, ok := at[ob]; ok != hit || hit && cb != want {
				t.Fatalf("block %d is at %d %v, want %d %v", ob, cb, hit, want, ok)
			}
			if start != nil {
				works = append(works, *start)
			}
		}
		if r.IntN(50) == 0 {
			sound(t, p)
		}
	}
	sound(t, p)
	return out
}

// TestDecisions: entries are where they belong, and one seed gives one history.
func TestDecisions(t *testing.T) {
	all := ""
	for seed := range uint64(30) {
		a := history(t, seed)
		if a != history(t, seed) {
			t.Fatalf("seed %d gives two histories", seed)
		}
		all += a
	}
	for op := Promote; op <= Writeback; op++ {
		if !strings.Contains(all, "{"+op.String()) {
			t.Errorf("no block was to %v", op)
		}
	}
}

// TestHotSpotsArePromoted: a block that is read at each tick comes in, before others that
// are read once.
func TestHotSpotsArePromoted(t *testing.T) {
	p := New(Options{Blocks: 64, OriginSectors: 1 << 20, BlockSectors: 64})
	for i := range uint64(500) {
		p.Tick(time.Duration(i) * time.Millisecond)
		p.Lookup(3, false, false)
		p.Lookup(1000+i*16, false, false)
	}
	w, ok := p.Next(false)
	if !ok || w.Op != Promote || w.OBlock != 3 {
		t.Errorf("%v, %v", w, ok)
	}
}
