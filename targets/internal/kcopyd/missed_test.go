package kcopyd

import (
	"slices"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

// What only two threads can do to each other is done here by one, at the place
// where the other would come in between.

// Memory is given back after a job has found none and before it is in the list.
func TestWhoWaitsForMemoryLooksAgain(t *testing.T) {
	e := env.NewStepped()
	c := New(e, Options{SubJob: 8, Memory: 4096})
	d := Open(memdev.New(64))
	j := &Job{From: Place{d, 0}, Sectors: 8}
	j.SetTo(Place{d, 8})
	done := false
	j.Done = func(*Job) { done = true }
	c.mem.waiters.Add(1) // keeps the job from taking what there is
	c.Copy(j)
	c.mem.waiters.Add(-1)
	if e.Run(); !done {
		t.Fatal("the job waits for memory that is free")
	}
	c.Close()
}

// A job is finished while its predecessors are left to the work.
func TestJobsThatAreLeftToTheWorkKeepTheirTurn(t *testing.T) {
	e := env.NewStepped()
	c := New(e, Options{})
	var order []int
	jobs := make([]Job, 3)
	for i := range jobs {
		jobs[i].Done = func(*Job) { order = append(order, i) }
		c.Prepare(&jobs[i])
	}
	c.running = true
	var left jobList
	left.Push(&jobs[0])
	left.Push(&jobs[1])
	c.done.Push(&jobs[2])
	c.putBack(left)
	c.Close()
	if !slices.Equal(order, []int{0, 1, 2}) {
		t.Fatalf("order %v", order)
	}
}

// Lack of space is told apart from all that is worse, and can be repeated.
func TestLackOfSpace(t *testing.T) {
	for _, other := range []blk.Status{blk.OK, blk.NoSpace, blk.IOErr} {
		for _, first := range []bool{false, true} {
			e := env.NewStepped()
			c := New(e, Options{})
			gs, j := gates(t, e, 2)
			j.Done = func(*Job) {}
			c.Copy(j)
			gs[0].Release(0)
			if first {
				gs[2].Fail(0, other)
			}
			gs[1].Fail(0, blk.NoSpace)
			if !first {
				gs[2].Fail(0, other)
			}
			e.Run()
			if j.NoSpace != (other != blk.IOErr) || !j.Failed() {
				t.Fatalf("other %v: no space %v, failed %v", other, j.NoSpace, j.Failed())
			}
			for _, g := range gs {
				g.Open()
			}
			c.Copy(j)
			if e.Run(); j.NoSpace || j.Failed() {
				t.Fatalf("again: no space %v, failed %v", j.NoSpace, j.Failed())
			}
			c.Close()
		}
	}
}
