package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
)

// How long others wait while a pool does large work: another volume of the pool is read,
// or written where it has no blocks yet, one bio at a time. Beside them stands a control,
// which hands a value to a goroutine and back: it waits for the processors, but for
// nothing of udm's. The longest time for which a thread of the process was ready to run but
// had no processor is subtracted from each wait: what remains is udm's.

const (
	largeBlocks = 65536                  // of the volume that the work is done to
	besideTime  = 300 * time.Millisecond // of work that has no end of its own
	slowFor     = 10 * time.Millisecond  // of a slow disk's flush, or of a slow write
	slowWrite   = 64                     // sectors of a write that is slow
	pauseBound  = 2000                   // µs
)

// The volumes of a pool.
const (
	readVolume = iota
	freshVolume
	largeVolume
	firstSnapshot
)

// busyPool is a pool with a volume whose blocks are all mapped, one that has none, and one
// that work is done to.
type busyPool struct {
	*stack
	pool               *dm.Device
	read, fresh, large *dm.Device
	other              chan uint64 // to the control's goroutine
}

// work is what the pool does meanwhile.
type work struct {
	name string
	slow bool // the data disk takes slowFor for a flush and for a slow write
	full bool // the large volume's blocks are mapped, each a run of its own
	do   func(*busyPool) error
	most float64 // the longest pause that is promised, in µs; 0: none is
}

var works = []work{
	{name: "nothing", do: func(*busyPool) error { time.Sleep(besideTime); return nil }, most: pauseBound},
	{name: "provisioning", do: (*busyPool).provision, most: pauseBound},
	{name: "breaking of shared blocks", full: true, do: (*busyPool).breakSharing, most: pauseBound},
	{name: "a discard of 65536 blocks", full: true, do: (*busyPool).discard, most: pauseBound},
	{name: "the deletion of 65536 blocks", full: true, do: (*busyPool).delete, most: pauseBound},
	{name: "commits to a disk with flushes of 10 ms", slow: true, do: (*busyPool).commit},
	{name: "discards that wait for writes of 10 ms", slow: true, do: (*busyPool).discardSlowly, most: pauseBound},
	{name: "the collector of garbage", do: func(*busyPool) error { return until(func(uint64) error { runtime.GC(); return nil }) }, most: pauseBound},
}

func benchPools(r *report) error {
	for _, w := range works {
		if err := r.besideWork(w); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// besideWork measures what others wait beside a work.
func (r *report) besideWork(w work) error {
	group := "beside " + w.name
	longest, own := map[string]*figure{}, map[string]*figure{}
	var cases []measured
	for name, prepare := range map[string]func(*busyPool) func(i uint64) error{
		"control": control, "reads": (*busyPool).reads, "writes to new blocks": (*busyPool).newBlocks,
	} {
		f, g := &figure{Group: group + ", longest", Name: name, Unit: "µs"}, &figure{Group: group + ", longest with a processor", Name: name, Unit: "µs"}
		longest[name], own[name] = f, g
		cases = append(cases, measured{name, "µs, p99.9", func() (float64, error) {
			took, running, err := w.beside(prepare)
			if err != nil {
				return 0, err
			}
			f.Rounds, g.Rounds = append(f.Rounds, microseconds(took[len(took)-1])), append(g.Rounds, microseconds(running))
			return microseconds(took[len(took)*999/1000]), nil
		}})
	}
	slices.SortFunc(cases, func(a, b measured) int { return strings.Compare(a.name, b.name) })
	if err := r.group(group, cases...); err != nil {
		return err
	}
	for _, c := range cases {
		longest[c.name].Rounds = longest[c.name].Rounds[1:] // the first does not count
		r.add(longest[c.name])
	}
	for _, c := range cases {
		f := own[c.name]
		f.Rounds = f.Rounds[1:]
		r.add(f)
		if w.most > 0 && c.name != "control" {
			r.atMost(w.most, f.median(), "%s, %s: the longest with a processor, in µs", group, c.name)
		}
	}
	return nil
}

func microseconds(d time.Duration) float64 { return float64(d) / 1e3 }

// beside makes a pool, does the work, and returns how long each step took meanwhile, the
// longest last, and the longest of one while it had a processor.
func (w work) beside(prepare func(*busyPool) func(uint64) error) (took []time.Duration, running time.Duration, err error) {
	p, err := newBusyPool(w)
	if err != nil {
		return nil, 0, err
	}
	defer func() { close(p.other); err = errors.Join(err, p.close()) }()
	step := prepare(p)
	took = make([]time.Duration, 0, 1<<21)
	runtime.GC()
	var done atomic.Bool
	ended := make(chan error)
	q := newQueued()
	defer q.close()
	go func() {
		err := w.do(p)
		done.Store(true)
		ended <- err
	}()
	for i := uint64(0); !done.Load() && err == nil && len(took) < cap(took); i++ {
		q.begin()
		start := time.Now()
		err = step(i)
		d := time.Since(start)
		took = append(took, d)
		if d > running {
			running = max(running, d-q.longest())
		}
	}
	err = errors.Join(err, <-ended)
	slices.Sort(took)
	return took, running, err
}

func newBusyPool(w work) (*busyPool, error) {
	const blocks = 1 << 24
	var data blk.Device = nulldev.New(blocks * thinBlock)
	if w.slow {
		data = slowDisk{data}
	}
	p := &busyPool{stack: newStack(map[string]blk.Device{"meta": memdev.New(1 << 19), "data": data}), other: make(chan uint64)}
	var err error
	if p.pool, err = p.device("pool", "0 %d thin-pool meta data %d 0 1 skip_block_zeroing", uint64(blocks*thinBlock), thinBlock); err != nil {
		return nil, err
	}
	for id, d := range []**dm.Device{&p.read, &p.fresh, &p.large} {
		if _, err = p.pool.Message(0, fmt.Sprint("create_thin ", id)); err == nil {
			*d, err = p.device(fmt.Sprint("thin", id), "0 %d thin /dev/mapper/pool %d", uint64(blocks*thinBlock), id)
		}
		if err != nil {
			return nil, err
		}
	}
	if err = fillBackwards(p.read, bioBlocks); err == nil && w.full {
		err = fillBackwards(p.large, largeBlocks)
	}
	if err == nil {
		err = readMany(p.read, bioBlocks, thinBlock, bioBlocks, 0)
	}
	return p, err
}

// fillBackwards writes to the first blocks of a volume, the last one first, so that no two
// of them are one run.
func fillBackwards(d *dm.Device, blocks uint64) error {
	for i := range blocks {
		if err := write(d, (blocks-1-i)*thinBlock, 8); err != nil {
			return err
		}
	}
	return nil
}

// slowDisk takes a while for flushes and for writes of slowWrite sectors.
type slowDisk struct{ blk.Device }

func (d slowDisk) Submit(b *blk.Bio) {
	if b.Op == blk.Flush || b.Op == blk.Write && b.Sectors == slowWrite {
		time.AfterFunc(slowFor, func() { d.Device.Submit(b) })
		return
	}
	d.Device.Submit(b)
}

// control hands a value to a goroutine and back.
func control(p *busyPool) func(uint64) error {
	back := make(chan uint64)
	go func() {
		for i := range p.other {
			back <- i
		}
	}()
	return func(i uint64) error {
		p.other <- i
		<-back
		return nil
	}
}

func (p *busyPool) reads() func(uint64) error {
	b := newBio()
	return func(uint64) error {
		return b.send(p.read, blk.Read, rand.Uint64N(bioBlocks)*thinBlock)
	}
}

func (p *busyPool) newBlocks() func(uint64) error {
	b := newBio()
	return func(i uint64) error { return b.send(p.fresh, blk.Write, i*thinBlock) }
}

// single is a bio of 4 KiB that is sent again and again.
type single struct {
	blk.Bio
	done chan struct{}
}

func newBio() *single {
	o := &single{done: make(chan struct{}, 1)}
	o.SetData(make([]byte, 4096))
	o.End = func(*blk.Bio) { o.done <- struct{}{} }
	return o
}

func (o *single) send(d blk.Device, op blk.Op, sector uint64) error {
	o.Rearm()
	o.Op, o.Sector, o.Sectors = op, sector, 8
	d.Submit(&o.Bio)
	<-o.done
	return o.Status().Err()
}

// until calls f for besideTime.
func until(f func(i uint64) error) (err error) {
	end := time.Now().Add(besideTime)
	for i := uint64(0); err == nil && time.Now().Before(end); i++ {
		err = f(i)
	}
	return err
}

func (p *busyPool) provision() error {
	b := newBio()
	return until(func(i uint64) error { return b.send(p.large, blk.Write, i*thinBlock) })
}

func (p *busyPool) commit() error {
	data := make([]byte, 4096)
	return until(func(i uint64) error { return blk.WriteSectors(env.Real(), p.large, data, i*thinBlock, blk.FUA) })
}

func (p *busyPool) breakSharing() error {
	if _, err := p.pool.Message(0, fmt.Sprint("create_snap ", firstSnapshot, largeVolume)); err != nil {
		return err
	}
	b, order := newBio(), rand.Perm(largeBlocks)
	return until(func(i uint64) error {
		return b.send(p.large, blk.Write, uint64(order[i%largeBlocks])*thinBlock)
	})
}

func (p *busyPool) discard() error {
	return blk.DiscardSectors(env.Real(), p.large, 0, largeBlocks*thinBlock)
}

// delete deletes the large volume, and waits until its blocks are free.
func (p *busyPool) delete() error {
	if _, err := p.large.Remove(false); err != nil {
		return err
	}
	if _, err := p.pool.Message(0, fmt.Sprint("delete ", largeVolume)); err != nil {
		return err
	}
	// No event tells that a deletion is complete.
	for p.used() > mapped(p.read)+mapped(p.fresh) {
		time.Sleep(time.Millisecond)
	}
	return nil
}

// used is how many blocks of data are in use, as the pool's status tells.
func (p *busyPool) used() (blocks uint64) {
	_, _ = fmt.Sscanf(statusWord(p.pool, 2), "%d", &blocks)
	return blocks
}

// mapped is how many blocks a volume has, as its status tells.
func mapped(d *dm.Device) (blocks uint64) {
	_, _ = fmt.Sscanf(statusWord(d, 0), "%d", &blocks)
	return blocks / thinBlock
}

func statusWord(d *dm.Device, n int) string {
	return strings.Fields(d.Lines(dm.Info, false, 0)[0].Params)[n]
}

// discardSlowly writes a block slowly, and discards it meanwhile.
func (p *busyPool) discardSlowly() error {
	data := make([]byte, slowWrite*blk.SectorSize)
	return until(func(uint64) error {
		written := make(chan error)
		go func() { written <- blk.WriteSectors(env.Real(), p.large, data, 0, 0) }()
		err := blk.DiscardSectors(env.Real(), p.large, 0, thinBlock)
		return errors.Join(err, <-written)
	})
}
