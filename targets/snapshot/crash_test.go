package snapshot

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

var crashSeeds = flag.Int("crashseeds", 0, "seeds of TestCrashAnywhere; 0: a few")

// tap cuts the power during and after every bio that changes a device.
type tap struct {
	*memdev.Device
	p *powered
}

func (d *tap) Submit(b *blk.Bio) {
	writes := b.Op.IsWrite()
	if writes {
		d.p.cutDuring(d.Device, b)
	}
	d.Device.Submit(b)
	if writes {
		d.p.cut(d.p.o, d.p.c)
	}
}

// powered is a stack of origin, snapshot and perhaps a merge on devices with a
// volatile cache, with models of what each may hold after a power cut.
type powered struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	chunk  uint64
	size   uint64
	o, c   *memdev.Device
	snap   *blktest.Model // what s holds; while merging, what m holds
	orig   *blktest.Model // what o holds
	merges bool
	states int // moments at which the power could be cut
	each   int // one of so many moments is looked at
	next   *moment
	quiet  bool // no cuts now
}

func newPowered(t *testing.T, seed, chunk, size uint64) *powered {
	p := &powered{t: t, seed: seed, chunk: chunk, size: size, rng: rand.New(rand.NewPCG(seed, 7)), each: 1}
	opts := []memdev.Option{memdev.Volatile}
	if seed%2 == 1 {
		opts = append(opts, memdev.Tune(func(l *blk.Limits) { l.FUA = false }))
	}
	p.o, p.c = memdev.New(size, opts...), memdev.New(4*size, opts...)
	p.snap, p.orig = blktest.NewModel(size), blktest.NewModel(size)
	e := env.Real()
	if blk.WriteSectors(e, p.o, blktest.Pattern(0, size, 1), 0, 0) != nil || blk.FlushDevice(e, p.o) != nil {
		t.Fatal("no origin")
	}
	// The old content of the COW device, as far as the store may reach, looks like
	// entries without a header.
	junk := make([]byte, (size+size/4)*512)
	for i := range uint64(len(junk) / entrySize) {
		putEntry(junk, i, i%(size/chunk), 2+i%(size/chunk))
	}
	clear(junk[:512])
	if blk.WriteSectors(e, p.c, junk, 0, 0) != nil || blk.FlushDevice(e, p.c) != nil {
		t.Fatal("no COW device")
	}
	p.snap.Write(0, size, 1, true)
	p.orig.Write(0, size, 1, true)
	return p
}

// table is the table line of s or m.
func (p *powered) table() (name, table string) {
	if p.merges {
		return "m", fmt.Sprintf("snapshot-merge O C P %d", p.chunk)
	}
	return "s", fmt.Sprintf("snapshot O C P %d", p.chunk)
}

// cut checks what a power cut may leave of the devices at this moment.
func (p *powered) cut(o, c *memdev.Device) {
	if p.due() {
		p.look(o, c)
	}
}

// due reports whether a power cut at this moment is to be checked.
func (p *powered) due() bool {
	if p.quiet {
		return false
	}
	p.states++
	return p.states%p.each == 0
}

// look cuts the power and checks the result. Now and then the run continues from
// there.
func (p *powered) look(o, c *memdev.Device) {
	seed := p.rng.Uint64()
	o, c = o.CrashClone(seed), c.CrashClone(seed+1)
	if p.states%(64*p.each) == 0 || p.next == nil {
		p.next = &moment{o.CrashCloneAll(), c.CrashCloneAll(), p.snap.Clone(), p.orig.Clone()}
	}
	p.verify(o, c, p.snap.Clone(), p.orig.Clone())
}

// moment is a power cut from which the run can continue.
type moment struct {
	o, c       *memdev.Device
	snap, orig *blktest.Model
}

// cutDuring cuts the power while a device carries out b: part of a write has reached
// the disk, with FUA or without.
func (p *powered) cutDuring(d *memdev.Device, b *blk.Bio) {
	if b.Op == blk.Flush || !p.due() {
		return
	}
	if b.Flags&blk.Preflush != 0 {
		_ = blk.FlushDevice(env.Real(), d)
	}
	torn := d.CrashClone(p.rng.Uint64())
	w := &blk.Bio{End: func(*blk.Bio) {}}
	w.CloneFrom(b)
	w.Flags = 0
	torn.Submit(w)
	if d == p.o {
		p.look(torn, p.c)
	} else {
		p.look(p.o, torn)
	}
}

// verify opens the store on the devices and compares with the models.
func (p *powered) verify(o, c *memdev.Device, snap, orig *blktest.Model) {
	p.t.Helper()
	snap.Crash()
	orig.Crash()
	e := env.NewStepped()
	ctl := dm.NewControl(e, disks{"O": o, "C": c}, Types()...)
	r := &rig{TB: p.t, e: e, disks: disks{"O": o, "C": c}, c: ctl}
	name, table := p.table()
	if err := r.load(name, p.size, table); err != nil {
		p.t.Fatalf("seed %d state %d: %v", p.seed, p.states, err)
	}
	r.ok(r.resume(name))
	all := make([]byte, p.size*512)
	r.ok(blk.ReadSectors(e, r.dev(name), all, 0))
	p.must(snap.Check(all, 0), name)
	if p.merges {
		r.run() // to its end
		r.wantInfo(name, fmt.Sprintf("%d/%d %[1]d", 2*p.chunk, 4*p.size))
		r.ok(blk.ReadSectors(e, o, all, 0))
		p.must(snap.Check(all, 0), "O after the merge")
	} else {
		r.ok(blk.ReadSectors(e, o, all, 0))
		p.must(orig.Check(all, 0), "O")
	}
	r.ok(ctl.Close())
	p.must(checkStore(c), "store")
}

func (p *powered) must(err error, what string) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("seed %d state %d: %s: %v", p.seed, p.states, what, err)
	}
}

// run uses the stack for a number of steps, cuts the power at every write, and ends
// with a power cut.
func (p *powered) run(steps int) {
	p.next = nil
	e := env.NewSim(p.rng.Uint64())
	ds := disks{"O": &tap{p.o, p}, "C": &tap{p.c, p}}
	r := &rig{TB: p.t, e: e, disks: ds}
	r.c = dm.NewControl(e, ds, Types()...)
	name, table := p.table()
	p.quiet = p.states == 0 // TestCrashInCreation
	s := r.device(name, p.size, table)
	o := s
	if !p.merges {
		o = r.device("o", p.size, "snapshot-origin O")
	}
	p.quiet = false
	for range steps {
		p.step(r, s, o)
	}
	p.quiet = true
	r.run()
	r.ok(r.c.Close())
	if p.next == nil {
		p.next = &moment{p.o.CrashCloneNone(), p.c.CrashCloneNone(), p.snap, p.orig}
	}
	p.o, p.c, p.snap, p.orig = p.next.o, p.next.c, p.next.snap, p.next.orig
}

// step does a few things at a time.
func (p *powered) step(r *rig, s, o *dm.Device) {
	var ws []*write
	at := p.rng.Uint64N(16)
	for at+40 < p.size && len(ws) < 12 {
		n := 1 + p.rng.Uint64N(2*p.chunk)
		d, m := s, p.snap
		if p.rng.IntN(2) == 0 && !p.merges {
			d, m = o, p.orig
		}
		if p.rng.IntN(3) == 0 { // a whole chunk
			at, n = (at+p.chunk-1)/p.chunk*p.chunk, p.chunk
		}
		ws = append(ws, p.begin(d, m, at, n))
		at += n + p.rng.Uint64N(p.size/10)
	}
	r.run()
	for _, w := range ws {
		if w.ends != 1 {
			p.t.Fatalf("seed %d: write ended %d times", p.seed, w.ends)
		}
	}
	if p.rng.IntN(3) == 0 {
		p.flush(r, s, p.snap)
	}
	if p.rng.IntN(3) == 0 && !p.merges {
		p.flush(r, o, p.orig)
	}
}

type write struct {
	io
	op blktest.Op
}

func (p *powered) begin(d blk.Device, m *blktest.Model, at, n uint64) *write {
	w := &write{}
	seed := 2 + p.rng.Uint64N(blktest.MaxSeed-2)
	fua := p.rng.IntN(5) == 0 && p.seed%2 != 1
	if fua {
		w.Flags = blk.FUA
	}
	w.Op, w.Sector = blk.Write, at
	w.SetData(blktest.Pattern(at, n, seed))
	w.op = m.Begin(at, n, seed)
	w.End = func(b *blk.Bio) {
		w.ends++
		m.End(w.op, b.Status(), fua)
	}
	d.Submit(&w.Bio)
	return w
}

func (p *powered) flush(r *rig, d blk.Device, m *blktest.Model) {
	token := m.FlushBegin()
	r.ok(blk.FlushDevice(r.e, d))
	m.FlushEnd(token)
}

// settle makes the models agree with what the last power cut has left.
func (p *powered) settle() {
	p.snap.Crash()
	p.orig.Crash()
	e := env.NewStepped()
	r := &rig{TB: p.t, e: e, disks: disks{"O": p.o, "C": p.c}}
	r.c = dm.NewControl(e, r.disks, Types()...)
	name, table := p.table()
	if p.merges {
		name, table = "s", fmt.Sprintf("snapshot O C P %d", p.chunk)
	}
	d := r.device(name, p.size, table)
	all := make([]byte, p.size*512)
	r.ok(blk.ReadSectors(e, d, all, 0))
	p.must(p.snap.Check(all, 0), "snapshot after a power cut")
	r.ok(blk.ReadSectors(e, p.o, all, 0))
	if !p.merges {
		p.must(p.orig.Check(all, 0), "origin after a power cut")
	}
	r.ok(r.c.Close())
}

func TestCrashAnywhere(t *testing.T) {
	seeds, states := *crashSeeds, 0
	if seeds == 0 {
		seeds = 8
		if race {
			seeds = 2
		}
	}
	for seed := range uint64(seeds) {
		p := newPowered(t, seed, 2<<(seed/2%3), 256)
		if race && testing.Short() {
			p.each = 16 // all is on one thread: the race detector finds nothing in it
		}
		for range 3 {
			p.run(8)
			p.settle()
		}
		p.merges = true
		p.run(4)
		p.settle()
		p.run(2)
		states += p.states
	}
	t.Logf("%d states", states)
	if min := 600 * seeds; states < min {
		t.Errorf("only %d states of %d seeds", states, seeds)
	}
}
