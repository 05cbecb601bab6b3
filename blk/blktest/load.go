package blktest

import (
	"math/rand/v2"
	"sync"
	"testing"

	"udm/blk"
	"udm/env"
)

// Load is verified I/O of several users, each to its own part of a disk.
type Load struct {
	T testing.TB
	D blk.Device // changed between runs only

	mu    sync.Mutex
	cond  sync.Cond // mu; steps or ended changed
	M     *Model    // guarded by mu
	seed  uint64    // guarded by mu; of the last write
	steps int       // guarded by mu
	ended int       // guarded by mu; users
	done  bool      // guarded by mu; users end
	fails bool      // bios may fail
	users sync.WaitGroup
}

const users = 4

// NewLoad is a load without users, on a disk of zeroes; the test itself reads and writes.
func NewLoad(t testing.TB, d blk.Device, sectors uint64) *Load {
	l := &Load{T: t, D: d, M: NewModel(sectors)}
	l.cond.L = &l.mu
	return l
}

// StartLoad starts the users, which go on until Stop. With fails bios may fail.
func StartLoad(t testing.TB, d blk.Device, sectors uint64, fails bool) *Load {
	l := NewLoad(t, d, sectors)
	l.fails = fails
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range users {
		l.users.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for l.step(rng, uint64(i)*sectors/users, sectors/users) {
			}
			l.mu.Lock()
			l.ended++
			l.cond.Broadcast()
			l.mu.Unlock()
		})
	}
	return l
}

// step does one bio, and returns false when the load is over.
func (l *Load) step(rng *rand.Rand, first, sectors uint64) bool {
	at := first + rng.Uint64N(sectors)
	n := 1 + rng.Uint64N(min(64, first+sectors-at))
	ok := true
	switch rng.IntN(10) {
	case 0:
		l.Flush()
	case 1:
		l.Write(blk.WriteZeroes, at, n, 0)
	case 2, 3, 4:
		ok = l.Read(at, n)
	case 5:
		l.Write(blk.Write, at, n, blk.FUA)
	default:
		l.Write(blk.Write, at, n, 0)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps++
	l.cond.Broadcast()
	return ok && !l.done
}

func (l *Load) failed(b *blk.Bio, st blk.Status) {
	if st != blk.OK && !l.fails {
		l.T.Errorf("%v: %v", b, st)
	}
}

// Flush flushes.
func (l *Load) Flush() {
	l.mu.Lock()
	token := l.M.FlushBegin()
	l.mu.Unlock()
	b := &blk.Bio{Op: blk.Flush}
	st := blk.Do(env.Real(), l.D, b)
	l.failed(b, st)
	if st == blk.OK {
		l.mu.Lock()
		l.M.FlushEnd(token)
		l.mu.Unlock()
	}
}

// Write writes the next pattern, or zeroes.
func (l *Load) Write(op blk.Op, at, n uint64, f blk.Flags) {
	l.mu.Lock()
	seed := uint64(0)
	if op == blk.Write {
		l.seed++
		seed = l.seed
	}
	o := l.M.Begin(at, n, seed)
	l.mu.Unlock()
	b := &blk.Bio{Op: op, Flags: f, Sector: at, Sectors: n}
	if op == blk.Write {
		b.SetData(Pattern(at, n, seed))
	}
	st := blk.Do(env.Real(), l.D, b)
	l.failed(b, st)
	l.mu.Lock()
	l.M.End(o, st, f&blk.FUA != 0)
	l.mu.Unlock()
}

// Read reads and compares; false: it found something else.
func (l *Load) Read(at, n uint64) bool {
	p := make([]byte, n*blk.SectorSize)
	b := &blk.Bio{Op: blk.Read, Sector: at}
	b.SetData(p)
	st := blk.Do(env.Real(), l.D, b)
	l.failed(b, st)
	if st != blk.OK {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.M.Check(p, at); err != nil {
		l.T.Error(err)
		return false
	}
	return true
}

// More waits for n more steps; false: the users have ended.
func (l *Load) More(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n += l.steps; l.steps < n && l.ended < users; {
		l.cond.Wait()
	}
	return l.ended < users
}

// Stop waits for the users and reads everything.
func (l *Load) Stop() {
	l.mu.Lock()
	l.done = true
	l.mu.Unlock()
	l.users.Wait()
	l.Read(0, l.M.Sectors())
}
