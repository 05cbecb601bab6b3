package pdata

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/internal/invariants"
)

var (
	ops  = flag.Int("ops", 20000, "random operations in a model test")
	seed = flag.Uint64("seed", 1, "seed of the random tests")
)

var kindSuper = &Kind{Name: "superblock", Xor: 160774, BlockNr: 8}

// store is a metadata device with one tree and one data space map; their roots
// are in the superblock.
type store struct {
	t     *testing.T
	d     *memdev.Device
	bm    *BlockManager
	tm    *TM
	sm    *SpaceMap
	tree  *Tree[uint64]
	root  uint64
	cache int
}

func newStore(t *testing.T, blocks uint64, cache int) *store {
	t.Helper()
	s := &store{t: t, d: memdev.New(blocks*BlockSectors, memdev.Volatile), cache: cache}
	s.bm = NewBlockManager(env.Real(), s.d, cache)
	var err error
	if s.tm, err = Format(s.bm, 0); err != nil {
		t.Fatal(err)
	}
	if s.sm, err = NewSpaceMap(s.tm); err != nil {
		t.Fatal(err)
	}
	s.types()
	if s.root, err = s.tree.Empty(); err != nil {
		t.Fatal(err)
	}
	s.commit()
	return s
}

func (s *store) types() {
	block := func(v uint64) uint64 { return v >> 24 }
	s.tree = NewTree(s.tm, U64).Refs(
		func(v []byte, n int) error { return Runs(v, n, block, s.sm.Inc) },
		func(v []byte, n int) error { return Runs(v, n, block, s.sm.Dec) },
		func(a, b []byte) bool { return le.Uint64(a)>>24 == le.Uint64(b)>>24 })
}

func (s *store) commit() {
	s.t.Helper()
	if err := s.tryCommit(); err != nil {
		s.t.Fatal(err)
	}
	s.settle()
}

func (s *store) tryCommit() error { return s.commitBeside(func() {}) }

// commitBeside commits and calls fn when the transaction is sealed.
func (s *store) commitBeside(fn func()) error {
	s.sm.Seal()
	ps, err := s.tm.seal()
	if err != nil {
		return err
	}
	super := make([]byte, BlockSize)
	s.tm.Map().Root().Put(super[64:])
	s.sm.Root().Put(super[128:])
	le.PutUint64(super[192:], s.root)
	fn()
	err = s.bm.writePages(ps)
	if err == nil {
		err = s.bm.WriteSuper(0, kindSuper, super)
	}
	s.bm.written(ps, err)
	if err == nil {
		s.sm.Durable()
		s.tm.durable()
	}
	return err
}

func (s *store) settle() {
	s.t.Helper()
	s.bm.Publish(nil)
	if err := s.bm.Settle(); err != nil {
		s.t.Fatal(err)
	}
}

// reopen does what an abort or a restart does.
func (s *store) reopen() {
	s.t.Helper()
	s.bm.Forget(nil)
	b, err := s.bm.Read(0, kindSuper)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.tm, err = OpenTM(s.bm, GetMapRoot(b.Bytes()[64:])); err != nil {
		s.t.Fatal(err)
	}
	s.sm = OpenSpaceMap(s.tm, GetMapRoot(b.Bytes()[128:]))
	s.root = le.Uint64(b.Bytes()[192:])
	s.types()
}

// scaled makes a test smaller when every access is checked.
func scaled(n int) int {
	if invariants.Enabled {
		return max(1, n/6)
	}
	return n
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// counts walks all structures of the store, checks every node, and counts the
// references to metadata and data blocks.
func (s *store) counts(roots ...uint64) (meta, data map[uint64]uint32) {
	s.t.Helper()
	meta, data = map[uint64]uint32{0: 1}, map[uint64]uint32{}
	for _, r := range roots {
		s.countTree(&s.tree.t, r, meta, func(v []byte) { data[le.Uint64(v)>>24]++ })
	}
	s.countMap(&s.sm.cur, meta)
	s.countMap(&s.tm.sm.cur, meta)
	return meta, data
}

func (s *store) countMap(l *ll, meta map[uint64]uint32) {
	s.t.Helper()
	if l.index != nil {
		meta[l.root.BitmapRoot]++
	} else {
		s.countTree(&l.tree.t, l.root.BitmapRoot, meta, nil)
	}
	s.countTree(&l.refs.t, l.root.RefRoot, meta, nil)
	allocated := uint64(0)
	for i := uint64(0); i*perBitmap < l.root.Blocks; i++ {
		e := must(l.load(i))
		meta[e.block]++
		b := bitmap(must(s.bm.get(e.block, kindBitmap, true)).data[:])
		used, first := uint32(0), uint32(perBitmap)
		for j := range uint32(perBitmap) {
			if b.get(j) != 0 {
				used++
			} else if first == perBitmap {
				first = j
			}
		}
		allocated += uint64(used)
		if e.free != perBitmap-used || e.none > first {
			s.t.Fatalf("index entry %d says %d free, none before %d; there are %d, the first is %d", i, e.free, e.none, perBitmap-used, first)
		}
	}
	if allocated != l.root.Allocated {
		s.t.Fatalf("space map says %d allocated, there are %d", l.root.Allocated, allocated)
	}
}

func (s *store) countTree(t *tree, nr uint64, meta map[uint64]uint32, leaf func(v []byte)) {
	s.t.Helper()
	s.countNode(t, nr, nr, -1, meta, leaf)
}

func (s *store) countNode(t *tree, root, nr uint64, depth int, meta map[uint64]uint32, leaf func(v []byte)) {
	s.t.Helper()
	if meta[nr]++; meta[nr] > 1 {
		return
	}
	n := must(t.read(nr, 0))
	if nr != root && n.count() < n.max()/3 {
		s.t.Fatalf("node %d has %d of %d entries", nr, n.count(), n.max())
	}
	for i := range n.count() {
		if !n.leaf() {
			c := must(t.read(n.child(i), 0))
			r := keyRange{}.of(n, i)
			if err := r.check(c); err != nil {
				s.t.Fatal(err)
			}
			s.countNode(t, root, n.child(i), depth, meta, leaf)
		} else if leaf != nil {
			leaf(n.values(i, i+1))
		}
	}
}

// check compares both space maps with the actual references.
func (s *store) check(roots ...uint64) {
	s.t.Helper()
	meta, data := s.counts(roots...)
	for nr := range s.tm.sm.Blocks() {
		if n := must(s.tm.Ref(nr)); n != meta[nr] {
			s.t.Fatalf("metadata block %d counts %d, is used %d times", nr, n, meta[nr])
		}
	}
	for nr := range s.sm.cur.root.Blocks {
		if n := must(s.sm.Count(nr)); n != data[nr] {
			s.t.Fatalf("data block %d counts %d, is used %d times", nr, n, data[nr])
		}
	}
}

func (s *store) contents(root uint64) map[uint64]uint64 {
	m := map[uint64]uint64{}
	if err := s.tree.Walk(root, func(k, v uint64) error { m[k] = v; return nil }); err != nil {
		s.t.Fatal(err)
	}
	return m
}

// TestTreeModel runs random operations on a tree and its snapshots.
func TestTreeModel(t *testing.T) {
	for _, cache := range []int{1, 0} {
		t.Run(fmt.Sprint("cache", cache), func(t *testing.T) { treeModel(t, scaled(*ops), *seed, cache) })
	}
}

func treeModel(t *testing.T, ops int, seed uint64, cache int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := newStore(t, 20000, cache)
	if err := s.sm.Extend(100000); err != nil {
		t.Fatal(err)
	}
	s.commit()
	roots := []uint64{s.root}
	models := []map[uint64]uint64{{}}
	committed := func() ([]uint64, []map[uint64]uint64) {
		ms := make([]map[uint64]uint64, len(models))
		for i, m := range models {
			ms[i] = maps.Clone(m)
		}
		return slices.Clone(roots), ms
	}
	oldRoots, oldModels := committed()
	base := uint64(0)
	for i := range ops {
		j := rng.IntN(len(roots))
		m := models[j]
		var err error
		switch op := rng.IntN(1000); {
		case op < 600: // insert, often in a row
			k := rng.Uint64N(30000)
			if op < 400 {
				base++
				k = base % 30000
			}
			b, aerr := s.sm.New()
			if errors.Is(aerr, syscall.ENOSPC) {
				continue
			}
			if aerr != nil {
				t.Fatal(aerr)
			}
			var inserted bool
			roots[j], inserted, err = s.tree.InsertNotify(roots[j], b<<24|uint64(j), k)
			if _, had := m[k]; err == nil && had == inserted {
				t.Fatalf("op %d: insert of %d says %v", i, k, inserted)
			}
			m[k] = b<<24 | uint64(j)
		case op < 940: // remove
			k := rng.Uint64N(30000)
			if _, had := m[k]; !had {
				if _, err := s.tree.Lookup(roots[j], k); err != syscall.ENODATA {
					t.Fatalf("op %d: lookup of %d: %v", i, k, err)
				}
				next, v, err := s.tree.LookupNext(roots[j], k)
				if err == syscall.ENODATA {
					continue
				}
				if err != nil || m[next] != v {
					t.Fatalf("op %d: next of %d is %d: %v", i, k, next, err)
				}
				k = next
			}
			roots[j], err = s.tree.Remove(roots[j], k)
			delete(m, k)
		case op < 960: // remove a range
			b := rng.Uint64N(30000)
			e := b + rng.Uint64N(400)
			var n, want uint64
			roots[j], n, err = s.tree.RemoveRange(roots[j], b, e)
			for k := range m {
				if k >= b && k < e {
					delete(m, k)
					want++
				}
			}
			if err == nil && n != want {
				t.Fatalf("op %d: removed %d of [%d,%d), want %d", i, n, b, e, want)
			}
		case op < 964 && len(roots) < 6: // snapshot
			err = s.tm.Inc(roots[j])
			roots = append(roots, roots[j])
			models = append(models, maps.Clone(m))
		case op < 966 && len(roots) > 1: // delete
			err = s.tree.Del(roots[j])
			roots, models = slices.Delete(roots, j, j+1), slices.Delete(models, j, j+1)
		case op < 975: // commit
			s.commit()
			oldRoots, oldModels = committed()
		case op < 976: // abort
			s.bm.Forget(nil)
			s.reopen()
			roots, models = oldRoots, oldModels
			oldRoots, oldModels = committed()
		default:
			k := rng.Uint64N(30000)
			v, lerr := s.tree.Lookup(roots[j], k)
			if w, had := m[k]; had && (lerr != nil || v != w) || !had && lerr != syscall.ENODATA {
				t.Fatalf("op %d: lookup of %d: %d, %v", i, k, v, lerr)
			}
			if v2, found, ok := s.tree.TryLookup(roots[j], []uint64{k}); ok && (found != (lerr == nil) || v2 != v) {
				t.Fatalf("op %d: reader finds %d, %v for %d", i, v2, found, k)
			}
		}
		if err != nil {
			t.Fatalf("op %d: %v", i, err)
		}
		s.settle()
		if wholeDue(i, ops) {
			s.check(roots...)
		}
	}
	s.check(roots...)
	for j, m := range models {
		if !maps.Equal(s.contents(roots[j]), m) {
			t.Fatalf("tree %d differs from its model", j)
		}
	}
}

func TestCorruptNamesBlockAndPath(t *testing.T) {
	s := newStore(t, 2000, 0)
	if err := s.sm.Extend(10000); err != nil {
		t.Fatal(err)
	}
	for k := range uint64(5000) {
		s.root = must(s.tree.Insert(s.root, must(s.sm.New())<<24, k))
	}
	s.commit()
	root := must(s.tree.t.read(s.root, 0))
	leaf := root.child(root.count() - 1)
	if err := blk.WriteSectors(env.Real(), s.d, bytes.Repeat([]byte{0xff}, 512), leaf*8+3, 0); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	_, err := s.tree.Lookup(s.root, 4999)
	var c *Corrupt
	if !errors.As(err, &c) || c.Block != leaf || !slices.Equal(c.Path, []uint64{s.root, leaf}) {
		t.Fatalf("got %v, want the leaf %d under %d", err, leaf, s.root)
	}
}

// TestOrder reads a tree in order with each of the ways to do so.
func TestOrder(t *testing.T) {
	s := newStore(t, 2000, 1)
	ok(t, s.sm.Extend(20000))
	if c := must(s.tree.Cursor(s.root)); c.Valid() {
		t.Fatal("an empty tree has a first entry")
	}
	if _, found, err := s.tree.Lowest(s.root); found || err != nil {
		t.Fatal("an empty tree has a lowest key")
	}
	var keys []uint64
	for k := range uint64(10000) {
		keys = append(keys, 5+k*3)
		s.root = must(s.tree.Insert(s.root, must(s.sm.New())<<24, 5+k*3))
	}
	s.settle()
	var got []uint64
	for c := must(s.tree.Cursor(s.root)); c.Valid(); ok(t, c.Next()) {
		if v := must(s.tree.Lookup(s.root, c.Key())); v != c.Value() {
			t.Fatalf("key %d has the value %d at the cursor, %d by lookup", c.Key(), c.Value(), v)
		}
		got = append(got, c.Key())
	}
	if !slices.Equal(got, keys) {
		t.Fatalf("the cursor met %d keys of %d, or others", len(got), len(keys))
	}
	got = nil
	ok(t, s.tree.Scan(s.root, 3000, func(k, _ uint64) bool { got = append(got, k); return k < 9000 }))
	if got[0] != 3002 || got[len(got)-1] != 9002 || len(got) != 2001 {
		t.Fatalf("scan from %d to %d, %d keys", got[0], got[len(got)-1], len(got))
	}
	low, _, err := s.tree.Lowest(s.root)
	high, _, err2 := s.tree.Highest(s.root)
	if low != keys[0] || high != keys[len(keys)-1] || err != nil || err2 != nil {
		t.Fatalf("from %d to %d: %v, %v", low, high, err, err2)
	}
}
