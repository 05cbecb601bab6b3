package snapshot

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
)

// disks opens devices by name; all of them stay open with the test.
type disks map[string]blk.Device

func (d disks) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	dev := d[name]
	if dev == nil {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "%s", name)
	}
	minor := uint32(0)
	for _, b := range []byte(name) {
		minor = minor<<8 | uint32(b)
	}
	return &opened{Device: dev}, dm.Number{Major: 7, Minor: minor}, nil
}

// opened is one open of a disk. It fails requests after it was closed.
type opened struct {
	blk.Device
	closed atomic.Bool
}

func (o *opened) Submit(b *blk.Bio) {
	if o.closed.Load() {
		b.Complete(blk.Offline)
		return
	}
	o.Device.Submit(b)
}

func (o *opened) Close() error { o.closed.Store(true); return nil }

// rig is a control with an origin O, a COW device C, and what a test adds. Both
// are gates, open at first.
type rig struct {
	testing.TB
	e     env.Env
	disks disks
	c     *dm.Control
	gates map[string]*blktest.Gate
}

func newRig(t testing.TB, e env.Env, ds disks) *rig {
	r := &rig{TB: t, e: e, disks: ds, gates: map[string]*blktest.Gate{}}
	r.c = dm.NewControl(e, ds, Types()...)
	t.Cleanup(func() {
		r.open()
		if err := r.c.Close(); err != nil {
			t.Error(err)
		}
		r.checkStores(ds)
	})
	return r
}

// newGated is a rig with memory devices O and C behind gates, open at first.
func newGated(t testing.TB, e env.Env, origin, cow uint64, opts ...memdev.Option) *rig {
	r := newRig(t, e, disks{})
	for n, size := range map[string]uint64{"O": origin, "C": cow} {
		r.gate(n, memdev.New(size, opts...))
	}
	p := blktest.Pattern(0, origin, 1)
	r.ok(blk.WriteSectors(e, r.gates["O"], p, 0, 0))
	r.forget()
	return r
}

func (r *rig) gate(name string, d blk.Device) *blktest.Gate {
	g := blktest.NewGate(r.e, d)
	g.Open()
	r.gates[name], r.disks[name] = g, g
	return g
}

func (r *rig) open() {
	for _, g := range r.gates {
		g.Open()
	}
	r.run()
}

func (r *rig) shut() {
	for _, g := range r.gates {
		g.Shut()
	}
}

func (r *rig) forget() {
	for _, g := range r.gates {
		g.Forget()
	}
}

// run runs everything that does not wait for the test.
func (r *rig) run() {
	if s, ok := r.e.(*env.Sim); ok {
		s.Run()
	}
}

// beside runs f to its end, on another thread if there are any.
func (r *rig) beside(f func()) {
	if _, ok := r.e.(*env.Sim); ok {
		f()
		return
	}
	var wg sync.WaitGroup
	wg.Go(f)
	wg.Wait()
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// device creates the device name, unless it exists, and loads a table of one target over
// sectors.
func (r *rig) load(name string, sectors uint64, table string) error {
	d, err := r.c.Name(name)
	if err != nil {
		if d, err = r.c.Create(name, "", -1); err != nil {
			return err
		}
	}
	typ, params, _ := strings.Cut(table, " ")
	return d.Load([]dm.Spec{{Len: sectors, Type: typ, Params: params}}, dm.Mode{Write: true})
}

func (r *rig) resume(name string) error { return r.dev(name).Resume(context.Background(), false) }

func (r *rig) suspend(name string) {
	r.Helper()
	r.ok(r.dev(name).Suspend(context.Background(), false))
}

func (r *rig) remove(name string) {
	r.Helper()
	_, err := r.dev(name).Remove(false)
	r.ok(err)
}

func (r *rig) device(name string, sectors uint64, table string) *dm.Device {
	r.Helper()
	r.ok(r.load(name, sectors, table))
	r.ok(r.resume(name))
	return r.dev(name)
}

func (r *rig) dev(name string) *dm.Device {
	r.Helper()
	d, err := r.c.Name(name)
	r.ok(err)
	return d
}

func (r *rig) snap(name string) *snapshot {
	switch m := r.dev(name).Target(0).Mapper().(type) {
	case *snapshot:
		return m
	case mergeTarget:
		return m.snapshot
	}
	panic("no snapshot")
}

func (r *rig) info(name string) string {
	return r.dev(name).Lines(dm.Info, false, 0)[0].Params
}

func (r *rig) wantInfo(name, want string) {
	r.Helper()
	if got := r.info(name); got != want {
		r.Fatalf("%s: status %q, want %q", name, got, want)
	}
}

// io is a bio under way.
type io struct {
	blk.Bio
	buf  []byte
	mu   sync.Mutex
	ends int // guarded by mu
}

func (i *io) ended() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ends > 0
}

// start submits a bio; a write carries the pattern of seed.
func (r *rig) start(d blk.Device, op blk.Op, sector, sectors, seed uint64, f blk.Flags) *io {
	b := &io{}
	b.Op, b.Sector, b.Sectors, b.Flags = op, sector, sectors, f
	if op.HasData() {
		b.buf = make([]byte, sectors*512)
		if op == blk.Write {
			blktest.Fill(b.buf, sector, seed)
		}
		b.SetData(b.buf)
	}
	b.End = func(*blk.Bio) { b.mu.Lock(); b.ends++; b.mu.Unlock() }
	d.Submit(&b.Bio)
	r.run()
	return b
}

func (r *rig) write(d blk.Device, sector, sectors, seed uint64) *io {
	return r.start(d, blk.Write, sector, sectors, seed, 0)
}

func (r *rig) read(d blk.Device, sector, sectors uint64) *io {
	return r.start(d, blk.Read, sector, sectors, 0, 0)
}

func (r *rig) wantEnd(i *io, st blk.Status) {
	r.Helper()
	r.run()
	if i.ends != 1 || i.Status() != st {
		r.Fatalf("bio ended %d times with %v, want once with %v", i.ends, i.Status(), st)
	}
}

func (r *rig) wantWaiting(is ...*io) {
	r.Helper()
	r.run()
	for n, i := range is {
		if i.ended() {
			r.Fatalf("bio %d has ended with %v", n, i.Status())
		}
	}
}

// wantData reads from d and compares.
func (r *rig) wantData(d blk.Device, sector, sectors, seed uint64) {
	r.Helper()
	p := make([]byte, sectors*512)
	r.ok(blk.ReadSectors(r.e, d, p, sector))
	if err := blktest.Check(p, sector, seed); err != nil {
		r.Fatalf("%v: %v", d, err)
	}
}

// wantTrace compares what reached a gate since forget.
func (r *rig) wantTrace(gate string, want ...string) {
	r.Helper()
	r.run()
	got := strings.TrimSpace(r.gates[gate].Trace())
	if got != strings.Join(want, "\n") {
		r.Fatalf("%s saw\n%s\nwant\n%s", gate, got, strings.Join(want, "\n"))
	}
}

// release lets one request through a gate: the oldest that touches sector.
func (r *rig) release(gate string, op blk.Op, sector uint64) {
	r.Helper()
	g := r.gates[gate]
	q, ok := g.Find(op, sector)
	if !ok {
		r.Fatalf("%s holds no %v of %d, but %v", gate, op, sector, g.Held())
	}
	g.Release(q.Index)
	r.run()
}

func (r *rig) fail(gate string, op blk.Op, sector uint64) {
	r.Helper()
	g := r.gates[gate]
	q, ok := g.Find(op, sector)
	if !ok {
		r.Fatalf("%s holds no %v of %d, but %v", gate, op, sector, g.Held())
	}
	g.Fail(q.Index, blk.Timeout)
	r.run()
}

func (r *rig) wantHeld(gate string, n int) {
	r.Helper()
	r.run()
	if h := r.gates[gate].Held(); len(h) != n {
		r.Fatalf("%s holds %v, want %d", gate, h, n)
	}
}

// idle fails the test unless s has nothing under way and nothing left over.
func (s *snapshot) mustBeIdle(t testing.TB) {
	t.Helper()
	slots := s.pending.made()
	for i := range slots {
		if slots[i].head.Load() != nil {
			t.Errorf("pending exception left in slot %d", i)
		}
	}
	if s.unfinished() || s.inFlight.Used() != 0 || s.throttled.count.Load() != 0 || !s.tracked.idle() {
		t.Errorf("unfinished %v, in progress %d, throttled %d, tracked %v", s.unfinished(), s.inFlight.Used(), s.throttled.count.Load(), !s.tracked.idle())
	}
}

// checkStores checks every disk that has a store.
func (r *rig) checkStores(ds disks) {
	r.Helper()
	head := make([]byte, 512)
	for n, d := range ds {
		if err := blk.ReadSectors(env.Real(), d, head, 0); err != nil {
			r.Errorf("%s: %v", n, err)
		}
		if _, fresh, err := parseHeader(head); fresh || err != nil {
			continue
		}
		if err := checkStore(d); err != nil {
			r.Errorf("store %s: %v", n, err)
		}
	}
}

// checkStore reads a whole store with its own code and checks the invariants: entries
// in order of allocation, each place used once, no area used for data, nothing behind
// the end of the list, a zeroed area behind a full one. An invalid store passes.
func checkStore(d blk.Device) error {
	e := env.Real()
	size := d.Limits().Size
	at := func(sector, n uint64) []byte {
		p := make([]byte, n*512)
		if err := blk.ReadSectors(e, d, p, sector); err != nil {
			panic(err)
		}
		return p
	}
	h, fresh, err := parseHeader(at(0, 1))
	if err != nil || fresh || !h.valid {
		return err
	}
	g := newGeometry(uint64(h.sectors))
	seenOld, seenNew := map[uint64]bool{}, map[uint64]bool{}
	last := uint64(1)
	for a := uint64(0); ; a++ {
		if (g.areaChunk(a)+1)*g.chunk > size {
			return fmt.Errorf("no end before the device's")
		}
		area := at(g.areaChunk(a)*g.chunk, g.chunk)
		ended := false
		for i := range g.perArea {
			old, new := getEntry(area, i)
			switch {
			case new == 0 && old == 0:
				ended = true
			case ended || new == 0:
				return fmt.Errorf("area %d entry %d: %d→%d behind the end", a, i, old, new)
			case seenOld[old] || seenNew[new]:
				return fmt.Errorf("area %d entry %d: %d→%d is there twice", a, i, old, new)
			case new <= last || g.isArea(new) || (new+1)*g.chunk > size:
				return fmt.Errorf("area %d entry %d: %d→%d after %d", a, i, old, new, last)
			}
			if !ended {
				seenOld[old], seenNew[new], last = true, true, new
			}
		}
		if ended {
			return nil
		}
	}
}

func stepped() *env.Sim { return env.NewStepped() }

const race = invariants.Enabled
