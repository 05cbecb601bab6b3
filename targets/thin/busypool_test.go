package thin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	"udm/targets/thin/thintools"
)

// busyPool is a pool with volumes that several writers use at once, and a model of
// every volume. It runs in a simulator or among goroutines.
type busyPool struct {
	testing.TB
	e                  env.Env
	meta, data, origin *memdev.Device
	wrap               func(name string, d blk.Device) blk.Device // what stands before a disk; nil: nothing
	control            *dm.Control
	pool               *dm.Device
	blocks             uint64   // of the pool
	volBlocks          uint64   // of a volume
	features           []string // of the pool
	idleDiscards       bool     // a discard may end well and do nothing, as in a read-only pool

	mu   sync.Mutex
	vols map[int]*vol // guarded by mu
	seed uint64       // guarded by mu; of the last write
	// maybe are the ids that a message in progress creates or deletes.
	maybe map[int]bool // guarded by mu
}

// vol is a volume and the contents that it may have.
type vol struct {
	id       int
	dev      *dm.Device
	external bool
	mu       sync.Mutex
	model    *blktest.Model // guarded by mu
}

const (
	originSectors = 700 // ends within a block
	originSeed    = 1 << 23
	writers       = 3 // of a volume
)

func newBusyPool(t testing.TB, e env.Env) *busyPool {
	w := &busyPool{TB: t, e: e, blocks: 96, volBlocks: 12, vols: map[int]*vol{}, maybe: map[int]bool{}}
	w.meta, w.data = memdev.New(1024*8, memdev.Volatile), memdev.New(96*bs, memdev.Volatile)
	w.origin = memdev.New(originSectors)
	w.must(blk.WriteSectors(e, w.origin, blktest.Pattern(0, originSectors, originSeed), 0, 0))
	return w
}

func (w *busyPool) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// Open makes the pool an opener of its three disks.
func (w *busyPool) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	var d blk.Device = map[string]*memdev.Device{"m": w.meta, "d": w.data, "o": w.origin}[name]
	if w.wrap != nil {
		d = w.wrap(name, d)
	}
	return d, dm.Number{Major: 7, Minor: uint32(name[0])}, nil
}

func (w *busyPool) device(name, table string) (*dm.Device, error) {
	d, err := w.control.Create(name, "", -1)
	if err != nil {
		return nil, err
	}
	if err := w.swap(d, table); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (w *busyPool) swap(d *dm.Device, table string) error {
	specs, err := dm.ParseTable(table)
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	return err
}

// start makes the control and the pool.
func (w *busyPool) start() (err error) {
	w.control = dm.NewControl(w.e, w, PoolType(), Type())
	w.pool, err = w.device("pool", poolTable(w.blocks, w.features...))
	return err
}

func (w *busyPool) stop() { w.must(w.control.Close()) }

func (w *busyPool) message(format string, args ...any) error {
	_, err := w.pool.Message(0, fmt.Sprintf(format, args...))
	return err
}

// open makes the device of a volume.
func (w *busyPool) open(v *vol) (err error) {
	table := fmt.Sprintf("0 %d thin /dev/mapper/pool %d", w.volBlocks*bs, v.id)
	if v.external {
		table += " o"
	}
	v.dev, err = w.device(fmt.Sprintf("thin%d", v.id), table)
	return err
}

// create makes a volume or, with origin, a snapshot of it.
func (w *busyPool) create(id int, external bool, origin *vol) (*vol, error) {
	v := &vol{id: id, external: external}
	w.setMaybe(id, true)
	defer w.setMaybe(id, false)
	var err error
	if origin == nil {
		v.model = blktest.NewModel(w.volBlocks * bs)
		if external {
			v.model.Write(0, originSectors, originSeed, true)
		}
		err = w.message("create_thin %d", id)
	} else {
		v.external = origin.external
		err = w.snapshot(v, origin)
	}
	if err == nil {
		err = w.open(v)
	}
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.vols[id] = v
	w.mu.Unlock()
	return v, nil
}

func (w *busyPool) setMaybe(id int, on bool) {
	w.mu.Lock()
	w.maybe[id] = on
	w.mu.Unlock()
}

// snapshot suspends the origin, copies its model and makes the snapshot. The message
// commits, so everything that has ended is durable afterwards.
func (w *busyPool) snapshot(v, origin *vol) error {
	if err := origin.dev.Suspend(context.Background(), false); err != nil {
		return err
	}
	origin.mu.Lock()
	v.model = origin.model.Clone()
	v.model.Flush()
	origin.mu.Unlock()
	err := w.message("create_snap %d %d", v.id, origin.id)
	return errors.Join(err, origin.dev.Resume(context.Background(), false))
}

// remove deletes a volume that is not in use.
func (w *busyPool) remove(v *vol) error { return w.remover(v)() }

// remover is a remove that may be called again after an error.
func (w *busyPool) remover(v *vol) func() error {
	w.mu.Lock()
	delete(w.vols, v.id)
	w.mu.Unlock()
	closed := false
	return func() (err error) {
		w.setMaybe(v.id, true)
		defer w.setMaybe(v.id, false)
		if !closed {
			err = v.dev.Close()
			closed = err == nil
		}
		if err == nil {
			err = w.message("delete %d", v.id)
		}
		return err
	}
}

func (w *busyPool) nextSeed() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seed++
	return w.seed
}

// locked runs fn on the volume's model.
func (v *vol) locked(fn func(m *blktest.Model)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fn(v.model)
}

// do sends b to the volume and waits. ended runs when b ends, before a suspend
// of the volume can be over.
func (w *busyPool) do(v *vol, b *blk.Bio, ended func(m *blktest.Model, st blk.Status)) blk.Status {
	var done atomic.Bool
	wait := w.e.NewWait()
	b.End = func(b *blk.Bio) {
		v.locked(func(m *blktest.Model) { ended(m, b.Status()) })
		done.Store(true)
		wait.Wake()
	}
	v.dev.Submit(b)
	wait.Until(done.Load)
	return b.Status()
}

func (w *busyPool) write(v *vol, sector, sectors uint64, flags blk.Flags) blk.Status {
	seed := w.nextSeed()
	var op blktest.Op
	v.locked(func(m *blktest.Model) { op = m.Begin(sector, sectors, seed) })
	b := &blk.Bio{Op: blk.Write, Flags: flags, Sector: sector}
	b.SetData(blktest.Pattern(sector, sectors, seed))
	return w.do(v, b, func(m *blktest.Model, st blk.Status) { m.End(op, st, flags&blk.FUA != 0) })
}

func (w *busyPool) read(v *vol, sector, sectors uint64) blk.Status {
	p := make([]byte, sectors*blk.SectorSize)
	b := &blk.Bio{Op: blk.Read, Sector: sector}
	b.SetData(p)
	st := blk.Do(w.e, v.dev, b)
	if st == blk.OK {
		v.locked(func(m *blktest.Model) {
			if err := m.Check(p, sector); err != nil {
				w.Errorf("volume %d: %v", v.id, err)
			}
		})
	}
	return st
}

func (w *busyPool) flush(v *vol) blk.Status {
	var token uint64
	v.locked(func(m *blktest.Model) { token = m.FlushBegin() })
	return w.do(v, &blk.Bio{Op: blk.Flush}, func(m *blktest.Model, st blk.Status) {
		if st == blk.OK {
			m.FlushEnd(token)
		}
	})
}

// discard discards whole blocks: they hold zeroes then, or what the origin has.
func (w *busyPool) discard(v *vol, block, n uint64) blk.Status {
	var ops []blktest.Op
	begin, end := block*bs, (block+n)*bs
	v.locked(func(m *blktest.Model) {
		if edge := min(end, originSectors); v.external && begin < edge {
			ops = append(ops, m.Begin(begin, edge-begin, originSeed))
			begin = edge
		}
		if begin < end {
			ops = append(ops, m.Begin(begin, end-begin, 0))
		}
	})
	b := &blk.Bio{Op: blk.Discard, Sector: block * bs, Sectors: n * bs}
	return w.do(v, b, func(m *blktest.Model, st blk.Status) {
		if w.idleDiscards {
			st = blk.IOErr // for the model: both is possible
		}
		for _, op := range ops {
			m.End(op, st, false)
		}
	})
}

// use is one writer's work on a volume. Writers share the blocks of a volume but not
// its sectors: writer k has every third run of 16 sectors of the first blocks, and
// every third of the other blocks as a whole.
func (w *busyPool) use(v *vol, k int, steps int, r *rand.Rand) {
	for range steps {
		w.step(v, uint64(k), r)
	}
}

func (w *busyPool) step(v *vol, k uint64, r *rand.Rand) {
	shared := w.volBlocks * 2 / 3
	own := shared + (r.Uint64N((w.volBlocks-shared)/writers))*writers + k
	run := (r.Uint64N(shared*bs/16/writers)*writers + k) * 16
	flags := blk.Flags(0)
	if r.IntN(8) == 0 {
		flags = blk.FUA
	}
	switch r.IntN(12) {
	case 0:
		w.flush(v)
	case 1, 2:
		w.write(v, own*bs, bs, flags)
	case 3, 4:
		w.discard(v, own, 1)
	case 5:
		at := r.Uint64N(bs - 8)
		w.write(v, own*bs+at, 8, flags)
	case 6:
		w.read(v, own*bs, bs)
		w.extents(v, own*bs, bs)
	case 7, 8:
		w.read(v, run, 16)
		w.extents(v, run, 16)
	default:
		at := r.Uint64N(9)
		w.write(v, run+at, 1+r.Uint64N(16-at), flags)
	}
}

// verify checks the content of every volume and the metadata, after a crash if crashed,
// with thin_check as well if judge is set. The pool is new: nothing runs. It returns
// the number of volumes.
func (w *busyPool) verify(crashed, judge bool) int {
	w.Helper()
	w.must(w.start())
	n := 0
	for _, id := range slices.Sorted(maps.Keys(w.vols)) {
		v := w.vols[id]
		err := w.open(v)
		if w.maybe[id] && dm.ErrnoOf(err) == syscall.ENODATA {
			continue
		}
		w.must(err)
		n++
		if crashed {
			v.model.Crash()
		}
		for s := uint64(0); s < w.volBlocks*bs; s += bs {
			if st := w.read(v, s, bs); st != blk.OK {
				w.Fatalf("volume %d sector %d: %v", id, s, st)
			}
		}
	}
	w.stop()
	w.checkMetadata(crashed, judge)
	return n
}

// checkMetadata runs the offline checker and, if judge is set, thin_check where
// it is installed. A power cut may leak blocks.
func (w *busyPool) checkMetadata(crashed, judge bool) {
	w.Helper()
	rep, err := thintools.Check(w.e, w.meta, thintools.CheckOptions{})
	if err != nil || rep.Fatal > 0 || rep.NonFatal > 0 && !crashed {
		w.Fatalf("metadata: %v %v", err, rep.Err())
	}
	if judge {
		w.thinCheck(crashed)
	}
}

func (w *busyPool) thinCheck(crashed bool) {
	w.Helper()
	program, err := exec.LookPath("thin_check")
	if err != nil {
		return
	}
	p := make([]byte, w.meta.Limits().Size*blk.SectorSize)
	w.must(blk.ReadSectors(w.e, w.meta, p, 0))
	path := filepath.Join(w.TempDir(), "meta")
	w.must(os.WriteFile(path, p, 0o600))
	args := []string{path}
	if crashed {
		args = []string{"--ignore-non-fatal-errors", path}
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		w.Fatalf("thin_check: %v\n%s", err, out)
	}
}

// again is a pool with the disks of another pool and copies of its models.
func (w *busyPool) again(t testing.TB, meta, data *memdev.Device) *busyPool {
	n := &busyPool{TB: t, e: env.NewStepped(), meta: meta, data: data, origin: w.origin, blocks: w.blocks, volBlocks: w.volBlocks,
		vols: map[int]*vol{}, maybe: map[int]bool{}}
	for id, v := range w.vols {
		n.vols[id] = &vol{id: id, external: v.external, model: v.model.Clone()}
		n.maybe[id] = w.maybe[id]
	}
	return n
}

// status is the pool's status line in words, without a commit.
func (w *busyPool) status() []string {
	return strings.Fields(w.pool.Lines(dm.Info, false, dm.StatusNoflush)[0].Params)
}
