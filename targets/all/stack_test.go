package all_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// stack is a random tree of mapped devices in a simulator, over disks behind
// gates that answer when answer says so.
type stack struct {
	t       *testing.T
	rng     *rand.Rand
	sim     *env.Sim
	control *dm.Control
	mems    []*memdev.Device // disk0, disk1, …
	gates   []*blktest.Gate  // before them
	devices map[string]*dm.Device
	specs   map[string][]dm.Spec
	names   []string // of devices
	changed map[string]bool
}

const diskSectors = 1 << 16

func newStack(t *testing.T, rng *rand.Rand, sim *env.Sim) *stack {
	s := &stack{t: t, rng: rng, sim: sim, devices: map[string]*dm.Device{}, specs: map[string][]dm.Spec{}, changed: map[string]bool{}}
	s.control = dm.NewControl(sim, s, all.Types()...)
	return s
}

// Open makes the stack the Opener of its disks.
func (s *stack) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	var n int
	if _, err := fmt.Sscanf(name, "disk%d", &n); err != nil || n >= len(s.gates) {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "no %s", name)
	}
	return kept{s.gates[n], s.mems[n], s.rng}, dm.Number{Major: 7, Minor: uint32(n)}, nil
}

// kept is an open disk, which outlives it.
type kept struct {
	blk.Device
	mem *memdev.Device
	rng *rand.Rand
}

func (kept) Close() error { return nil }

// Extents is exact to the sector, and often short.
func (k kept) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blktest.ExactExtents(k.mem, sector, 1+k.rng.Uint64N(sectors))
}

func (s *stack) disk() string {
	var opts []memdev.Option
	if s.rng.IntN(2) == 0 {
		opts = append(opts, memdev.Volatile)
	}
	s.mems = append(s.mems, memdev.New(diskSectors, opts...))
	s.gates = append(s.gates, blktest.NewGate(s.sim, s.mems[len(s.mems)-1]))
	return fmt.Sprintf("disk%d", len(s.gates)-1)
}

// under makes what a target of size sectors at an offset stands on: a device
// and the offset, as tables name them.
func (s *stack) under(depth int, size uint64) string {
	offset := s.rng.Uint64N(30)
	if depth == 0 {
		return fmt.Sprintf("%s %d", s.disk(), offset)
	}
	return fmt.Sprintf("/dev/mapper/%s %d", s.build(depth-1, size+offset), offset)
}

// build makes a running device of at least size sectors and returns its name.
func (s *stack) build(depth int, size uint64) string {
	var table string
	switch n := 1 + s.rng.Uint64N(2); s.rng.IntN(11) {
	case 0:
		cut := 1 + s.rng.Uint64N(size-1)
		table = fmt.Sprintf("0 %d linear %s\n%d %d linear %s", cut, s.under(depth, cut), cut, size-cut, s.under(depth, size-cut))
	case 1:
		chunk := 1 + s.rng.Uint64N(20)
		width := (size/n/chunk + 1) * chunk
		table = fmt.Sprintf("0 %d striped %d %d", width*n, n, chunk)
		for range n {
			table += " " + s.under(depth, width)
		}
	case 2:
		table = fmt.Sprintf("0 %d delay %s %d", size, s.under(depth, size), s.rng.IntN(3))
	case 3:
		table = fmt.Sprintf("0 %d flakey %s 3600 1", size, s.under(depth, size))
	case 4:
		table = fmt.Sprintf("0 %d switch %d %d 0", size, n, 1+s.rng.IntN(50))
		for range n {
			table += " " + s.under(depth, size)
		}
	case 5:
		table = fmt.Sprintf("0 %d dust %s %d", size, s.under(depth, size), 512<<s.rng.IntN(4))
	case 6:
		name, _, _ := strings.Cut(s.under(depth, size), " ")
		table = fmt.Sprintf("0 %d log-writes %s %s", size, name, s.disk())
	case 9:
		low, _, _ := strings.Cut(s.under(depth, size), " ")
		table = fmt.Sprintf("0 %d multipath 0 0 2 1 queue-length 0 2 0 %s %s historical-service-time 0 1 0 %s", size, low, low, low)
	case 8:
		unit := uint64(1) << s.rng.IntN(6)
		low, _, _ := strings.Cut(s.under(depth, size+2*unit), " ")
		table = fmt.Sprintf("0 %d ebs %s %d 1 %d", size, low, min(unit, size-1)/unit*unit, unit)
	case 7:
		table = fmt.Sprintf("0 %d crypt cipher_null-ecb - 0 %s", size, s.under(depth, size)) // what nobody has written is zero
	default:
		chunk := 1 + s.rng.Uint64N(20)
		length := (size/chunk + 1) * chunk
		table = fmt.Sprintf("0 %d unstriped %d %d %d %s", length, n, chunk, s.rng.Uint64N(n), s.under(depth, length*n))
	}
	return s.run(table)
}

// run makes a device with a table live.
func (s *stack) run(table string) string {
	name := fmt.Sprintf("d%d", len(s.names))
	d, err := s.control.Create(name, "", -1)
	if err == nil {
		s.specs[name], err = dm.ParseTable(table)
	}
	if err == nil {
		err = d.Load(s.specs[name], dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil {
		s.t.Fatalf("%s\n%v", table, err)
	}
	s.devices[name] = d
	s.names = append(s.names, name)
	return name
}

func (s *stack) tables() string {
	var b strings.Builder
	for _, n := range s.names {
		fmt.Fprintf(&b, "%s: %s", n, dm.FormatTable(s.specs[n]))
	}
	return b.String()
}

// answer lets some requests of a disk go, any of those that it holds.
func (s *stack) answer() {
	g := s.gates[s.rng.IntN(len(s.gates))]
	held := g.Held()
	s.rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, r := range held[:min(len(held), s.rng.IntN(60))] {
		g.Release(r.Index)
	}
	g.Forget()
}

// disturb suspends a device that is not being disturbed, perhaps loads its table
// again, and resumes it, while the history goes on.
func (s *stack) disturb() {
	name := s.names[s.rng.IntN(len(s.names))]
	if s.changed[name] {
		return
	}
	s.changed[name] = true
	noflush, reload := s.rng.IntN(2) == 0, s.rng.IntN(2) == 0
	s.sim.Go("disturb "+name, func() {
		d := s.devices[name]
		err := d.Suspend(context.Background(), noflush)
		if err == nil && reload {
			err = d.Load(s.specs[name], dm.Mode{Write: true})
		}
		if err == nil {
			err = d.Resume(context.Background(), noflush)
		}
		if err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		s.changed[name] = false
	})
}

// settle lets everything end.
func (s *stack) settle() {
	for _, g := range s.gates {
		g.Open()
	}
	s.sim.Advance(1 << 40)
	s.sim.Run()
}
