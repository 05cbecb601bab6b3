package deferredset

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk/blktest"
)

// log notes which works have run.
type log struct{ ran []int }

func (l *log) add(s *Set, n int) bool { return s.AddWork(func() { l.ran = append(l.ran, n) }) }

func enter(s *Set) Entry {
	sh := s.Shard()
	return s.Enter(&sh)
}

func (l *log) want(t *testing.T, want ...int) {
	t.Helper()
	if !slices.Equal(l.ran, want) {
		t.Fatalf("ran %v, want %v", l.ran, want)
	}
}

func TestIdleSetTakesNoWork(t *testing.T) {
	s, l := New(), &log{}
	for range 3 * ring {
		if l.add(s, 1) {
			t.Fatal("work taken by an idle set")
		}
	}
	s.Leave(enter(s))
	if l.add(s, 1) {
		t.Fatal("work taken by a set that is idle again")
	}
	l.want(t)
}

func TestWorkWaitsForWhatWasThereAndForNothingElse(t *testing.T) {
	s, l := New(), &log{}
	a, b := enter(s), enter(s)
	if !l.add(s, 1) {
		t.Fatal("not taken")
	}
	later := enter(s)
	s.Leave(a)
	l.want(t)
	s.Leave(b)
	l.want(t, 1)
	if !l.add(s, 2) {
		t.Fatal("not taken")
	}
	s.Leave(later)
	l.want(t, 1, 2)
}

func TestWorksRunInOrder(t *testing.T) {
	s, l := New(), &log{}
	old := enter(s)
	l.add(s, 1)
	young := enter(s)
	l.add(s, 2)
	s.Leave(young)
	l.want(t) // 2 does not overtake 1
	s.Leave(old)
	l.want(t, 1, 2)
}

func TestMoreWorksThanTheRingHasEpochs(t *testing.T) {
	s, l := New(), &log{}
	var want []int
	var es []Entry
	for i := range 3 * ring {
		es = append(es, enter(s))
		l.add(s, i)
		want = append(want, i)
	}
	for _, e := range es[1:] {
		s.Leave(e)
	}
	l.want(t)
	s.Leave(es[0])
	l.want(t, want...)
	if l.add(s, 9) {
		t.Fatal("not idle at the end")
	}
}

// A flag stands for a mapping that is withdrawn: nobody may use it once the work
// runs that was added after it was cleared.
func TestNobodyIsInsideWhenAWorkRuns(t *testing.T) {
	blktest.Leaks(t)
	s := New()
	var valid, closed atomic.Bool
	var inside atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !closed.Load() {
				e := enter(s)
				if valid.Load() {
					inside.Add(1)
					runtime.Gosched()
					inside.Add(-1)
				}
				s.Leave(e)
				runtime.Gosched()
			}
		})
	}
	for range 300 {
		valid.Store(true)
		runtime.Gosched()
		valid.Store(false)
		done := make(chan int64, 1)
		if !s.AddWork(func() { done <- inside.Load() }) {
			done <- inside.Load()
		}
		if n := <-done; n != 0 {
			t.Fatalf("%d inside", n)
		}
	}
	closed.Store(true)
	wg.Wait()
}

// The same with one I/O that takes long, so that works pile up behind it.
func TestNobodyIsInsideWhenWorksRunBehindASlowOne(t *testing.T) {
	blktest.Leaks(t)
	const rounds, behind = 30, 2*ring - 5
	var inside [rounds*behind + 1]atomic.Int64
	var generation atomic.Int64 // the one that may be used
	var closed atomic.Bool
	s := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			sh := s.Shard()
			for !closed.Load() {
				e := s.Enter(&sh)
				g := generation.Load()
				inside[g].Add(1)
				if rand.IntN(4) == 0 {
					runtime.Gosched()
				}
				inside[g].Add(-1)
				s.Leave(e)
				runtime.Gosched()
			}
		})
	}
	for range rounds {
		slow := enter(s)
		var ran sync.WaitGroup
		for range behind {
			g := generation.Add(1) - 1
			ran.Add(1)
			if !s.AddWork(func() {
				if n := inside[g].Load(); n != 0 {
					t.Errorf("%d use what is withdrawn", n)
				}
				ran.Done()
			}) {
				t.Error("a work is not taken though an I/O is under way")
				ran.Done()
			}
			runtime.Gosched()
		}
		s.Leave(slow)
		ran.Wait()
	}
	closed.Store(true)
	wg.Wait()
}

// Who leaves while works wait takes no lock, unless the works can run now.
func TestOnlyTheLastOfAnEpochTakesTheLock(t *testing.T) {
	s, l := New(), &log{}
	var es []Entry
	for i := range s.shards {
		for range 3 {
			es = append(es, s.Enter(&Shard{&s.shards[i]}))
		}
	}
	l.add(s, 1)
	s.mu.Lock() // who takes it now waits for ever
	for _, e := range es[1:] {
		s.Leave(e)
		s.Leave(enter(s))
	}
	s.mu.Unlock()
	l.want(t)
	s.Leave(es[0])
	l.want(t, 1)
}

// modelEntry and modelWork are what a list of everything in its order knows.
type modelEntry struct {
	entry Entry
	at    int // when it was made
}

type modelWork struct{ number, at int }

func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s, l := New(), &log{}
		var in []modelEntry
		var works []modelWork
		var want []int
		crowded := false // the ring was full: works may wait for later entries
		for now := range 600 {
			switch n := rng.IntN(10); {
			case n < 4:
				sh := Shard{&s.shards[rng.IntN(len(s.shards))]}
				in = append(in, modelEntry{s.Enter(&sh), now})
			case n < 8 && len(in) > 0:
				i := rng.IntN(len(in))
				if seed%2 == 0 {
					i = rng.IntN(1 + min(3, len(in)-1)) // about as they came
				}
				e := in[i].entry
				in = slices.Delete(in, i, i+1)
				s.Leave(e)
			case n >= 8:
				if s.current.Load()+1-s.oldest == ring {
					crowded = true
				}
				works = append(works, modelWork{now, now})
				if !l.add(s, now) {
					l.ran = append(l.ran, now)
				}
			}
			for len(works) > 0 && (len(in) == 0 || oldest(in) > works[0].at) {
				want = append(want, works[0].number)
				works = works[1:]
			}
			if len(l.ran) > len(want) || !slices.Equal(l.ran, want[:len(l.ran)]) {
				t.Fatalf("seed %d: ran %v, may run %v", seed, l.ran, want)
			}
			if len(in) == 0 {
				crowded = false
			}
			if !crowded && len(l.ran) != len(want) {
				t.Fatalf("seed %d: ran %v, must run %v", seed, l.ran, want)
			}
		}
	}
}

func oldest(in []modelEntry) int {
	return slices.MinFunc(in, func(a, b modelEntry) int { return a.at - b.at }).at
}

func TestEnterDoesNotAllocate(t *testing.T) {
	s := New()
	sh := s.Shard()
	if n := testing.AllocsPerRun(100, func() { s.Leave(s.Enter(&sh)) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkEnterLeave(b *testing.B) {
	s := New()
	b.RunParallel(func(pb *testing.PB) {
		sh := s.Shard()
		for pb.Next() {
			s.Leave(s.Enter(&sh))
		}
	})
}

// One I/O is slow, and a work waits for it.
func BenchmarkEnterLeaveWhileAWorkWaits(b *testing.B) {
	s := New()
	slow := enter(s)
	s.AddWork(func() {})
	b.RunParallel(func(pb *testing.PB) {
		sh := s.Shard()
		for pb.Next() {
			s.Leave(s.Enter(&sh))
		}
	})
	s.Leave(slow)
}
