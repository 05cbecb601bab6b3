package dm

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
)

var ctx = context.Background()

// rig is a Control in a stepped simulator whose lower devices are gated memory
// disks, made by name as tables ask for them: g0, g1, …
type rig struct {
	t     *testing.T
	sim   *env.Sim
	c     *Control
	mems  map[string]*memdev.Device
	gates map[string]*blktest.Gate
	limit func(*blk.Limits) // changes the limits of disks made from now on
}

const rigSectors = 1024

func newRig(t *testing.T) *rig {
	r := &rig{t: t, sim: env.NewStepped(), mems: map[string]*memdev.Device{}, gates: map[string]*blktest.Gate{}, limit: func(*blk.Limits) {}}
	r.c = NewControl(r.sim, r, shiftType, scriptType, partialType)
	t.Cleanup(r.close)
	return r
}

// close opens every gate, so that nothing is stuck, and removes all devices.
func (r *rig) close() {
	for _, g := range r.gates {
		g.Open()
	}
	r.sim.Run()
	if err := r.c.Close(); err != nil {
		r.t.Error(err)
	}
}

// Open makes the rig an Opener.
func (r *rig) Open(name string, write bool) (blk.Device, Number, error) {
	if !strings.HasPrefix(name, "g") {
		return nil, Number{}, Errorf(syscall.ENODEV, "no %s", name)
	}
	var n uint32
	fmt.Sscanf(name, "g%d", &n)
	return r.gate(name), Number{Major: 7, Minor: n}, nil
}

// gate is the gate before disk name.
func (r *rig) gate(name string) *blktest.Gate {
	if r.gates[name] == nil {
		r.mems[name] = memdev.New(rigSectors, memdev.Tune(r.limit))
		r.gates[name] = blktest.NewGate(r.sim, keep{r.mems[name]})
	}
	return r.gates[name]
}

// keep is a disk that stays when tables close it.
type keep struct{ *memdev.Device }

func (keep) Close() error { return nil }

// device makes a running device from table lines.
func (r *rig) device(name string, table ...string) *Device {
	r.t.Helper()
	d, err := r.c.Create(name, "", -1)
	r.must(err)
	r.load(d, table...)
	r.must(d.Resume(ctx, false))
	return d
}

func (r *rig) load(d *Device, table ...string) {
	r.t.Helper()
	r.must(d.Load(specs(table...), Mode{Write: true}))
}

func specs(lines ...string) []Spec {
	var ss []Spec
	for _, l := range lines {
		var s Spec
		f := strings.SplitN(l, " ", 4)
		fmt.Sscan(f[0], &s.Start)
		fmt.Sscan(f[1], &s.Len)
		s.Type = f[2]
		if len(f) == 4 {
			s.Params = f[3]
		}
		ss = append(ss, s)
	}
	return ss
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// io is one bio and its outcome.
type io struct {
	blk.Bio
	ends int
	data []byte
}

// submit sends a bio with pattern data and runs everything that is ready.
func (r *rig) submit(d *Device, op blk.Op, flags blk.Flags, sector, sectors uint64) *io {
	x := &io{}
	x.Op, x.Flags, x.Sector, x.Sectors = op, flags, sector, sectors
	if op.HasData() {
		x.data = blktest.Pattern(sector, sectors, sector+1)
		if op == blk.Read {
			clear(x.data)
		}
		x.SetData(x.data)
	}
	return r.send(d, x)
}

func (r *rig) send(d *Device, x *io) *io {
	x.End = func(*blk.Bio) { x.ends++ }
	d.Submit(&x.Bio)
	r.sim.Run()
	return x
}

func (r *rig) write(d *Device, sector, sectors uint64) *io {
	return r.submit(d, blk.Write, 0, sector, sectors)
}

func (r *rig) barrier(d *Device, sector, sectors uint64) *io {
	return r.submit(d, blk.Write, blk.Barrier, sector, sectors)
}

// ended checks that x has ended once, with st.
func (r *rig) ended(x *io, st blk.Status) {
	r.t.Helper()
	r.sim.Run()
	if x.ends != 1 || x.Status() != st {
		r.t.Fatalf("%v ended %d times with %v, want once with %v", &x.Bio, x.ends, x.Status(), st)
	}
}

func (r *rig) open(xs ...*io) {
	r.t.Helper()
	r.sim.Run()
	for _, x := range xs {
		if x.ends != 0 {
			r.t.Fatalf("%v has ended with %v", &x.Bio, x.Status())
		}
	}
}

// held checks that a gate holds exactly these requests: "write 0+8 fua", ….
func (r *rig) held(gate string, want ...string) {
	r.t.Helper()
	r.sim.Run()
	var got []string
	for _, q := range r.gate(gate).Held() {
		_, s, _ := strings.Cut(q.String(), " ")
		got = append(got, s)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("at %s: held %q, want %q", gate, got, want)
	}
}

// release lets the oldest held request of a gate go.
func (r *rig) release(gate string) {
	r.t.Helper()
	r.first(gate, func(g *blktest.Gate, i int) { g.Release(i) })
}

func (r *rig) fail(gate string, st blk.Status) {
	r.t.Helper()
	r.first(gate, func(g *blktest.Gate, i int) { g.Fail(i, st) })
}

func (r *rig) first(gate string, do func(*blktest.Gate, int)) {
	r.t.Helper()
	g := r.gate(gate)
	held := g.Held()
	if len(held) == 0 {
		r.t.Fatalf("nothing is held at %s", gate)
	}
	do(g, held[0].Index)
	r.sim.Run()
}

// suspendTask begins a suspend that waits beside the test.
func (r *rig) suspendTask(d *Device, noflush bool) *bool {
	done := new(bool)
	r.sim.Go("suspend", func() {
		r.must(d.Suspend(ctx, noflush))
		*done = true
	})
	r.sim.Run()
	return done
}

// resume resumes a device and runs everything that was deferred.
func (r *rig) resume(d *Device) {
	r.t.Helper()
	r.must(d.Resume(ctx, true))
	r.sim.Run()
}

// content checks that sectors of a disk hold the pattern of a write, seeded by the first
// sector of the bio that wrote it.
func (r *rig) content(disk string, sector, sectors, bioSector uint64) {
	r.t.Helper()
	p := make([]byte, sectors*blk.SectorSize)
	r.must(blk.ReadSectors(r.sim, r.mems[disk], p, sector))
	want := blktest.Pattern(sector, sectors, bioSector+1)
	if !bytes.Equal(p, want) {
		r.t.Fatalf("%s %d+%d: %v", disk, sector, sectors, blktest.Check(p, sector, bioSector+1))
	}
}

// scripted is a target that follows a plan; without one it remaps.
type scripted struct {
	dev   *Dev
	begin uint64
	plan  func(c *Clone) Outcome
	onEnd func(c *Clone, st blk.Status) (blk.Status, EndOutcome)
	log   []string
}

func (s *scripted) Map(c *Clone) Outcome {
	c.SetDev(s.dev)
	if s.plan != nil {
		return s.plan(c)
	}
	return Remapped
}

func (s *scripted) EndIO(c *Clone, st blk.Status) (blk.Status, EndOutcome) {
	if s.onEnd != nil {
		return s.onEnd(c, st)
	}
	return st, EndDone
}

func (s *scripted) Close()           { s.log = append(s.log, "close") }
func (s *scripted) Presuspend()      { s.log = append(s.log, "presuspend") }
func (s *scripted) PresuspendUndo()  { s.log = append(s.log, "undo") }
func (s *scripted) Postsuspend()     { s.log = append(s.log, "postsuspend") }
func (s *scripted) Preresume() error { s.log = append(s.log, "preresume"); return nil }
func (s *scripted) Resume()          { s.log = append(s.log, "resume") }
func (s *scripted) Areas() []Area    { return []Area{{s.dev, 0, 0}} }

// scriptType is "script DEVICE MAXIO": identity onto the device.
var scriptType = &Type{Name: "script", New: func(t *Target, args []string) (Mapper, error) {
	d, err := t.Open(args[0], true)
	if err != nil {
		return nil, err
	}
	if t.MaxIOLen, err = ParseUint(args[1], 1<<40); err != nil {
		return nil, err
	}
	t.NumFlush, t.NumDiscard = 1, 1
	return &scripted{dev: d, begin: t.Begin}, nil
}}

// partialType is "partial DEVICE N": it accepts at most N sectors of each bio.
var partialType = &Type{Name: "partial", New: func(t *Target, args []string) (Mapper, error) {
	d, err := t.Open(args[0], true)
	if err != nil {
		return nil, err
	}
	n, err := ParseUint(args[1], 1<<40)
	t.PartialUnit = 1
	return &partial{d, n}, err
}}

type partial struct {
	dev *Dev
	n   uint64
}

func (p *partial) Map(c *Clone) Outcome {
	c.SetDev(p.dev)
	if c.Sectors > p.n {
		c.Accept(p.n)
	}
	return Remapped
}
func (p *partial) Close() {}

// script is the scripted target that maps sector.
func script(d *Device, sector uint64) *scripted { return d.Target(sector).Mapper().(*scripted) }
