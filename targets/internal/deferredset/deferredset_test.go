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
					if rand.IntN(4) == 0 {
						runtime.Gosched()
					}
					inside.Add(-1)
				}
				s.Leave(e)
			}
		})
	}
	for range 1000 {
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
