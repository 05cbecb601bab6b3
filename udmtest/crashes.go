package udmtest

import (
	"fmt"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
)

// Plan is the plan of a run of [Crashes].
type Plan struct {
	Size  int64  // of the disk, in bytes; a multiple of 512
	Start string // path of a file with the disk's initial content; "": zeroes
	Seeds int    // number of disks checked for each moment; 0: 3. The first has lost all that it could lose, the second nothing
	First uint64 // the first seed
}

// Moment is the moment of a power cut.
type Moment struct {
	Event int // index of the last event before it; writes, flushes and marks are events
	Mark  int // the last promise before it; see [Disk.Mark]
	Seed  uint64
}

func (m Moment) String() string {
	return fmt.Sprintf("after event %d (mark %d), seed %d", m.Event, m.Mark, m.Seed)
}

// Crashes runs work once on a disk. Then it calls check with disks that a power cut could
// leave after each write and flush of work, Plan.Seeds of them each time, and returns how
// many these were. work reports its promises with [Disk.Mark]; Moment.Mark tells check
// which of them it had made. An error from check fails the test and names the moment.
func Crashes(t testing.TB, p Plan, work func(d *Disk), check func(d *Disk, m Moment) error) (states int) {
	t.Helper()
	log := &recorder{}
	mem := memdev.New(uint64(p.Size)/blk.SectorSize, memdev.Volatile)
	start := newDisk(t, mem, nil)
	if p.Start != "" {
		if err := start.Load(p.Start); err != nil {
			t.Fatal(err)
		}
	}
	before := mem.CrashCloneAll()
	work(newDisk(t, mem, log))
	return log.replay(t, before, p, check)
}

// Mark records that work has made promise n: what it promises must survive every later
// power cut.
func (d *Disk) Mark(n int) {
	if d.log != nil {
		d.log.add(event{mark: n, isMark: true})
	}
}

// event is a change of the disk, a flush or a mark.
type event struct {
	op      blk.Op
	flags   blk.Flags
	sector  uint64
	sectors uint64
	data    []byte
	mark    int
	isMark  bool
}

// recorder records the events of a disk in the order of their completion.
type recorder struct {
	mu     sync.Mutex
	events []event // guarded by mu
}

func (r *recorder) add(e event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
}

// recorded is a disk whose changes are recorded. It records and carries out a change
// under one lock, so that both have the same order. The disk is in memory and completes
// bios at once.
type recorded struct {
	*memdev.Device
	log *recorder
}

func (d *recorded) Submit(b *blk.Bio) {
	if b.Op == blk.Read {
		d.Device.Submit(b)
		return
	}
	b.Complete(d.change(b))
}

func (d *recorded) change(b *blk.Bio) blk.Status {
	e := event{op: b.Op, flags: b.Flags, sector: b.Sector, sectors: b.Sectors}
	if b.Op == blk.Write {
		e.data = make([]byte, b.Bytes())
		b.CopyOut(e.data)
	}
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	d.log.events = append(d.log.events, e)
	return e.apply(d.Device)
}

// replay repeats the events on before, a copy of the disk from before the run, and checks
// after each event the disks that a power cut could leave of it.
func (r *recorder) replay(t testing.TB, before *memdev.Device, p Plan, check func(*Disk, Moment) error) (states int) {
	t.Helper()
	seeds := p.Seeds
	if seeds == 0 {
		seeds = 3
	}
	mark := 0
	for n, e := range r.events {
		if e.isMark {
			mark = e.mark
			continue
		}
		e.apply(before)
		for i := range seeds {
			m := Moment{Event: n, Mark: mark, Seed: p.First + uint64(n*seeds+i)}
			if err := check(newDisk(t, survivor(before, i, m.Seed), nil), m); err != nil {
				t.Fatalf("power cut %v: %v", m, err)
			}
			states++
		}
	}
	return states
}

func survivor(d *memdev.Device, i int, seed uint64) *memdev.Device {
	switch i {
	case 0:
		return d.CrashCloneNone()
	case 1:
		return d.CrashCloneAll()
	}
	return d.CrashClone(seed)
}

func (e event) apply(d *memdev.Device) blk.Status {
	b := &blk.Bio{Op: e.op, Flags: e.flags, Sector: e.sector, Sectors: e.sectors, End: func(*blk.Bio) {}}
	if e.op == blk.Write {
		b.SetData(e.data)
	}
	d.Submit(b)
	return b.Status()
}
