package pdata

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
)

// checkEvery is the number of operations between two checks of the whole state.
const checkEvery = 10000

// wholeDue reports whether to check the whole state after operation i of n. Short
// runs check it several times, too.
func wholeDue(i, n int) bool { return i%max(1, min(n/20, checkEvery)) == 0 }

// counted is a model of a space map: each block's count now, and its count at the
// last commit if that may differ.
type counted struct {
	t         *testing.T
	rng       *rand.Rand
	now, then map[uint64]uint32
	size      uint64
	thenSize  uint64
	used      []uint64       // blocks with a count, in no order
	place     map[uint64]int // index in used
}

func newCounted(t *testing.T, size, stream uint64) *counted {
	return &counted{
		t: t, rng: rand.New(rand.NewPCG(*seed, stream)), now: map[uint64]uint32{}, then: map[uint64]uint32{},
		size: size, thenSize: size, place: map[uint64]int{},
	}
}

func (c *counted) before(nr uint64) uint32 {
	if n, ok := c.then[nr]; ok {
		return n
	}
	return c.now[nr]
}

func (c *counted) set(nr uint64, n uint32) {
	if _, ok := c.then[nr]; !ok {
		c.then[nr] = c.now[nr]
	}
	c.put(nr, n)
}

func (c *counted) put(nr uint64, n uint32) {
	i, is := c.place[nr]
	switch {
	case n > 0 && !is:
		c.place[nr] = len(c.used)
		c.used = append(c.used, nr)
	case n == 0 && is:
		last := c.used[len(c.used)-1]
		c.used[i], c.place[last] = last, i
		c.used = c.used[:len(c.used)-1]
		delete(c.place, nr)
	}
	if n == 0 {
		delete(c.now, nr)
	} else {
		c.now[nr] = n
	}
}

func (c *counted) commit() {
	clear(c.then)
	c.thenSize = c.size
}

func (c *counted) abort() {
	for nr, n := range c.then {
		c.put(nr, n)
	}
	c.size = c.thenSize
	clear(c.then)
}

// took checks that a block that New returned was free, both now and at the
// commit.
func (c *counted) took(nr uint64) {
	c.t.Helper()
	if c.now[nr] != 0 || c.before(nr) != 0 || nr >= c.size {
		c.t.Fatalf("block %d of %d was given out, counts %d, before %d", nr, c.size, c.now[nr], c.before(nr))
	}
	c.set(nr, 1)
}

// run picks a few consecutive blocks that all have a count.
func (c *counted) run() (begin, end uint64) {
	begin = c.used[c.rng.IntN(len(c.used))]
	for end = begin + 1; end-begin < 20 && c.now[end] > 0; end++ {
	}
	return begin, end
}

func (c *counted) add(begin, end uint64, delta int) {
	for nr := begin; nr < end; nr++ {
		c.set(nr, uint32(int(c.now[nr])+delta))
	}
}

// TestSpaceMapModel runs random operations on a data space map against counts
// in memory.
func TestSpaceMapModel(t *testing.T) {
	s := newStore(t, 4000, 1)
	c := newCounted(t, 40000, 8)
	ok(t, s.sm.Extend(c.size))
	s.commit()
	n := scaled(*ops)
	for i := range n {
		c.dataStep(s)
		s.settle()
		if wholeDue(i, n) {
			c.checkData(s)
		}
	}
	s.commit()
	c.commit()
	c.checkData(s)
	t.Logf("%d blocks, %d in use", c.size, len(c.used))
}

func (c *counted) dataStep(s *store) {
	c.t.Helper()
	switch op := c.rng.IntN(1000); {
	case op < 400:
		nr, err := s.sm.New()
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		ok(c.t, err)
		c.took(nr)
	case op < 650 && len(c.now) < 60000: // any blocks, including free ones
		begin := c.rng.Uint64N(c.size)
		end := min(c.size, begin+1+c.rng.Uint64N(20))
		ok(c.t, s.sm.Inc(begin, end))
		c.add(begin, end, 1)
	case op < 900 && len(c.used) > 0:
		begin, end := c.run()
		ok(c.t, s.sm.Dec(begin, end))
		c.add(begin, end, -1)
	case op < 990:
		nr := c.rng.Uint64N(c.size)
		if n := must(s.sm.Count(nr)); n != c.now[nr] {
			c.t.Fatalf("block %d counts %d, want %d", nr, n, c.now[nr])
		}
	case op == 990 && c.size < 200000:
		extra := c.rng.Uint64N(3000)
		ok(c.t, s.sm.Extend(extra))
		c.size += extra
	case op == 991:
		s.reopen()
		c.abort()
	default:
		s.commit()
		c.commit()
	}
}

// checkData compares the whole map with the model and walks all blocks of it and
// of the metadata space map.
func (c *counted) checkData(s *store) {
	c.t.Helper()
	for nr := range c.size {
		if n := must(s.sm.Count(nr)); n != c.now[nr] {
			c.t.Fatalf("block %d counts %d, want %d", nr, n, c.now[nr])
		}
	}
	if s.sm.cur.root.Blocks != c.size || s.sm.cur.root.Allocated != uint64(len(c.used)) {
		c.t.Fatalf("%+v, want %d blocks with %d in use", s.sm.cur.root, c.size, len(c.used))
	}
	c.checkMetadata(s, nil)
}

// TestMetadataSpaceMapModel runs random operations on the map that counts its own
// blocks.
func TestMetadataSpaceMapModel(t *testing.T) {
	s := newStore(t, 18000, 1)
	c := newCounted(t, 18000, 9)
	n := scaled(*ops)
	growing := true
	for i := range n {
		if len(c.used) < 100 {
			growing = true
		} else if len(c.used) > 13000 {
			growing = false
		}
		c.metadataStep(s, growing)
		s.settle()
		if wholeDue(i, n) {
			c.checkMetadata(s, c.now)
		}
	}
	s.commit()
	c.commit()
	c.checkMetadata(s, c.now)
	t.Logf("%d blocks, %d in use", c.size, len(c.used))
}

func (c *counted) metadataStep(s *store, growing bool) {
	c.t.Helper()
	op := c.rng.IntN(1000)
	if !growing && op < 800 {
		op = 800 - op // allocate less, free more
	}
	switch {
	case op < 350:
		nr, err := s.tm.sm.New()
		ok(c.t, err)
		c.took(nr)
	case op < 550 && len(c.used) > 0:
		begin, end := c.run()
		ok(c.t, s.tm.sm.Inc(begin, end))
		c.add(begin, end, 1)
	case op < 850 && len(c.used) > 0:
		begin, end := c.run()
		ok(c.t, s.tm.sm.Dec(begin, end))
		c.add(begin, end, -1)
	case op < 985 && len(c.used) > 0:
		nr, _ := c.run()
		if n := must(s.tm.sm.Count(nr)); n != c.now[nr] {
			c.t.Fatalf("block %d counts %d, want %d", nr, n, c.now[nr])
		}
	case op == 985 && c.size < 60000:
		extra := c.rng.Uint64N(1000)
		s.d.Resize((c.size + extra) * BlockSectors)
		ok(c.t, s.tm.sm.Extend(extra))
		c.size += extra
	case op == 986:
		s.reopen()
		c.abort()
	default:
		s.commit()
		c.commit()
	}
}

// checkMetadata compares the metadata space map with the store's references and
// the extra ones.
func (c *counted) checkMetadata(s *store, extra map[uint64]uint32) {
	c.t.Helper()
	meta, _ := s.counts(s.root)
	for nr := range s.tm.sm.Blocks() {
		if n := must(s.tm.Ref(nr)); n != meta[nr]+extra[nr] {
			c.t.Fatalf("metadata block %d counts %d, is used %d times", nr, n, meta[nr]+extra[nr])
		}
	}
}
