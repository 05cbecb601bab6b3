package blktest

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/env"
)

// batch is a group of bios that are in flight together. Each must end once.
type batch struct {
	x    *session
	wait env.Wait
	left atomic.Int64
	ends []atomic.Int32
	bios []*blk.Bio
}

func (x *session) batch(n int, op blk.Op, seed uint64) *batch {
	b := &batch{x: x, wait: x.Env.NewWait(), ends: make([]atomic.Int32, n), bios: make([]*blk.Bio, n)}
	b.left.Store(int64(n))
	for i := range b.bios {
		bio := &blk.Bio{Op: op, Sector: uint64(i) * x.block}
		bio.SetData(Pattern(bio.Sector, x.block, seed))
		bio.End = func(*blk.Bio) {
			b.ends[i].Add(1)
			b.left.Add(-1)
			b.wait.Wake()
		}
		b.bios[i] = bio
	}
	return b
}

func (b *batch) submit() {
	for _, bio := range b.bios {
		b.x.dev.Submit(bio)
	}
}

// check checks that every bio has ended once and succeeded.
func (b *batch) check() {
	for i, bio := range b.bios {
		if n := b.ends[i].Load(); n != 1 || bio.Status() != blk.OK {
			b.x.Errorf("%v %d: ended %d times, %v", bio.Op, i, n, bio.Status())
		}
	}
}

// queue submits many bios before it waits for any.
func (x *session) queue() {
	n := int(min(512, x.area/x.block))
	for round := range uint64(2) {
		for _, op := range []blk.Op{blk.Write, blk.Read} {
			b := x.batch(n, op, round+1)
			b.submit()
			b.wait.Until(func() bool { return b.left.Load() == 0 })
			b.check()
		}
		x.want(0, uint64(n)*x.block, round+1)
	}
}

// closeWaits checks that every submitted bio has ended when Close returns.
func (x *session) closeWaits() {
	w, r := x.batch(200, blk.Write, 1), x.batch(200, blk.Read, 1)
	w.bios, r.bios = w.bios[:min(200, x.area/x.block/2)], r.bios[:min(200, x.area/x.block/2)]
	for i, b := range r.bios {
		b.Sector = uint64(i)*x.block + x.area/2
	}
	w.submit()
	r.submit()
	if err := x.dev.Close(); err != nil {
		x.Errorf("close: %v", err)
	}
	w.check()
	r.check()
}

// concurrently runs n functions at the same time, as goroutines or as tasks of the simulator.
func (x *session) concurrently(n int, fn func(i int)) {
	if s, ok := x.Env.(*env.Sim); ok {
		left := n
		for i := range n {
			s.Go("user", func() { fn(i); left-- })
		}
		x.Env.NewWait().Until(func() bool { return left == 0 })
		return
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// model compares concurrent users with a model. Each has its own parts of the
// disk, whose borders share pages and chunks, and also flushes.
func (x *session) model() {
	const users = 4
	seed := uint64(time.Now().UnixNano())
	x.write(0, x.area, 1, 0)
	m := NewModel(x.area)
	m.Write(0, x.area, 1, true)
	var mu sync.Mutex // guards m
	x.concurrently(users, func(i int) {
		u := &user{x: x, rng: rand.New(rand.NewPCG(seed, uint64(i))), mu: &mu, m: m, part: uint64(i), parts: users}
		for n := range 100 {
			if !u.step(uint64(2 + n*users + i)) {
				x.Errorf("seed %d", seed)
				return
			}
		}
	})
}

// crash does random I/O on a small area with power cuts. After each cut it
// compares the whole area with the model.
func (x *session) crash() {
	if x.Crash == nil {
		return
	}
	x.area = 64 * x.block
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	m := NewModel(x.area)
	x.write(0, x.area, 1, blk.FUA)
	m.Write(0, x.area, 1, true)
	u := &user{x: x, rng: rng, mu: &mu, m: m, parts: 1}
	for n := range uint64(600) {
		ok := u.step(n + 2)
		if ok && rng.IntN(25) == 0 {
			x.use(x.Suite.Crash(x.T, x.raw, rng.Uint64()))
			x.area = 64 * x.block
			m.Crash()
			ok = u.read(0, x.area)
		}
		if !ok {
			x.Fatalf("seed %d", seed)
		}
	}
}

// user does random I/O to every parts-th stretch of seven blocks.
type user struct {
	x           *session
	rng         *rand.Rand
	mu          *sync.Mutex
	m           *Model // guarded by mu
	part, parts uint64
}

func (u *user) place() (sector, sectors uint64) {
	const stretch = 7
	rows := u.x.area / u.x.block / (stretch * u.parts)
	from := u.rng.Uint64N(stretch)
	n := 1 + u.rng.Uint64N(stretch-from)
	at := (u.rng.Uint64N(rows)*u.parts+u.part)*stretch + from
	return at * u.x.block, n * u.x.block
}

// step does one operation. It reports a difference from the model and returns
// false.
func (u *user) step(seed uint64) bool {
	at, n := u.place()
	switch u.rng.IntN(12) {
	case 0:
		return u.flush()
	case 1:
		return u.change(blk.WriteZeroes, at, n, 0, 0)
	case 2:
		if u.x.raw.Limits().MaxDiscard != 0 {
			return u.change(blk.Discard, at, n, 0, 0)
		}
		return true
	case 3, 4, 5, 6:
		return u.read(at, n)
	case 7:
		return u.change(blk.Write, at, n, seed, blk.FUA)
	}
	return u.change(blk.Write, at, n, seed, 0)
}

func (u *user) flush() bool {
	u.mu.Lock()
	token := u.m.FlushBegin()
	u.mu.Unlock()
	if st := u.x.do(blk.Flush, 0, 0, 0); st != blk.OK {
		u.x.Errorf("flush: %v", st)
		return false
	}
	u.mu.Lock()
	u.m.FlushEnd(token)
	u.mu.Unlock()
	return true
}

func (u *user) change(op blk.Op, at, n, seed uint64, f blk.Flags) bool {
	b := &blk.Bio{Op: op, Sector: at, Flags: f}
	if op == blk.Write {
		b.SetData(Pattern(at, n, seed))
	}
	b.Sectors = n
	u.mu.Lock()
	o := u.m.begin(at, n, version{seed: seed, any: op == blk.Discard})
	u.mu.Unlock()
	st := blk.Do(u.x.Env, u.x.dev, b)
	u.mu.Lock()
	u.m.End(o, st, f&blk.FUA != 0)
	u.mu.Unlock()
	if st != blk.OK {
		u.x.Errorf("%v %d+%d: %v", op, at, n, st)
	}
	return st == blk.OK
}

func (u *user) read(at, n uint64) bool {
	p := Pattern(at, n, MaxSeed)
	err := blk.ReadSectors(u.x.Env, u.x.dev, p, at)
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil && !u.x.Forgets {
		err = u.m.Check(p, at)
	}
	if err != nil {
		u.x.Errorf("read %d+%d: %v", at, n, err)
	}
	return err == nil
}
