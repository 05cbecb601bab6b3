package nbddev_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	"udm/blk/nbddev"
	"udm/env"
	"udm/export"
	"udm/export/nbd"
)

// remote is our own server of a disk, which can be restarted.
type remote struct {
	t     *testing.T
	wrap  func(blk.Device) blk.Device       // around the disk; nil: none
	shape func(net.Conn) io.ReadWriteCloser // around the client's end; nil: none
	dials atomic.Int64

	mu   sync.Mutex
	disk *memdev.Device // guarded by mu
	srv  *nbd.Server    // guarded by mu
	// serving are the connections; a new one begins when those of before have
	// ended, as far as they were cut: see fresh.
	serving sync.WaitGroup
	fresh   bool // each connection waits until the one before has ended
}

func newRemote(t *testing.T, disk *memdev.Device) *remote {
	r := &remote{t: t, disk: disk}
	t.Cleanup(func() { r.stop(); r.serving.Wait() })
	return r
}

// start serves the disk as it is now.
func (r *remote) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startLocked()
}

func (r *remote) startLocked() {
	var d blk.Device = r.disk
	if r.wrap != nil {
		d = r.wrap(d)
	}
	s, err := nbd.New(nbd.Config{Exports: nbd.Fixed{{Info: nbd.Info{Name: "disk"}, Device: export.Check(d)}}})
	if err != nil {
		r.t.Error(err)
	}
	r.srv = s
}

func (r *remote) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.srv != nil {
		r.srv.Close()
	}
}

// restart kills the server in whatever it does, lets f change the disk, and starts
// another server. Who connects meanwhile waits.
func (r *remote) restart(f func(*memdev.Device) *memdev.Device) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.srv.Close()
	r.disk = f(r.disk)
	r.startLocked()
}

func same(d *memdev.Device) *memdev.Device { return d }

func (r *remote) dial(context.Context) (io.ReadWriteCloser, error) {
	r.dials.Add(1)
	if r.fresh {
		r.serving.Wait()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	client, server := net.Pipe()
	srv := r.srv
	r.serving.Go(func() {
		srv.ServeConn(server)
		server.Close()
	})
	if r.shape != nil {
		return r.shape(client), nil
	}
	return client, nil
}

func (r *remote) open(o nbddev.Options) *checkdev.Device {
	r.t.Helper()
	d, err := r.tryOpen(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return checkdev.New(d, checkdev.Options{Preflush: true})
}

func (r *remote) tryOpen(o nbddev.Options) (*nbddev.Device, error) {
	o.Name, o.Export, o.Dial = "nbd:test", "disk", r.dial
	return nbddev.Open(env.Real(), o)
}

// load is verified I/O of several users, each to its own part of a disk.
type load struct {
	t *testing.T
	d blk.Device

	mu    sync.Mutex
	cond  sync.Cond      // mu; steps or ended changed
	m     *blktest.Model // guarded by mu
	seed  uint64         // guarded by mu; of the last write
	steps int            // guarded by mu
	ended int            // guarded by mu; users
	done  bool           // guarded by mu; users end
	fails bool           // bios may fail
	users sync.WaitGroup
}

const users = 4

func startLoad(t *testing.T, d blk.Device, sectors uint64, fails bool) *load {
	l := &load{t: t, d: d, m: blktest.NewModel(sectors), fails: fails}
	l.cond.L = &l.mu
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range users {
		l.users.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for l.step(rng, uint64(i)*sectors/users, sectors/users) {
			}
			l.mu.Lock()
			l.ended++
			l.cond.Broadcast()
			l.mu.Unlock()
		})
	}
	return l
}

// step is one bio; false: no more.
func (l *load) step(rng *rand.Rand, first, sectors uint64) bool {
	at := first + rng.Uint64N(sectors)
	n := 1 + rng.Uint64N(min(64, first+sectors-at))
	ok := true
	switch rng.IntN(10) {
	case 0:
		l.flush()
	case 1:
		l.write(blk.WriteZeroes, at, n, 0)
	case 2, 3, 4:
		ok = l.read(at, n)
	case 5:
		l.write(blk.Write, at, n, blk.FUA)
	default:
		l.write(blk.Write, at, n, 0)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps++
	l.cond.Broadcast()
	return ok && !l.done
}

func (l *load) failed(b *blk.Bio, st blk.Status) {
	if st != blk.OK && !l.fails {
		l.t.Errorf("%v: %v", b, st)
	}
}

func (l *load) flush() {
	l.mu.Lock()
	token := l.m.FlushBegin()
	l.mu.Unlock()
	b := &blk.Bio{Op: blk.Flush}
	st := blk.Do(env.Real(), l.d, b)
	l.failed(b, st)
	if st == blk.OK {
		l.mu.Lock()
		l.m.FlushEnd(token)
		l.mu.Unlock()
	}
}

func (l *load) write(op blk.Op, at, n uint64, f blk.Flags) {
	l.mu.Lock()
	seed := uint64(0)
	if op == blk.Write {
		l.seed++
		seed = l.seed
	}
	o := l.m.Begin(at, n, seed)
	l.mu.Unlock()
	b := &blk.Bio{Op: op, Flags: f, Sector: at, Sectors: n}
	if op == blk.Write {
		b.SetData(blktest.Pattern(at, n, seed))
	}
	st := blk.Do(env.Real(), l.d, b)
	l.failed(b, st)
	l.mu.Lock()
	l.m.End(o, st, f&blk.FUA != 0)
	l.mu.Unlock()
}

func (l *load) read(at, n uint64) bool {
	p := make([]byte, n*blk.SectorSize)
	b := &blk.Bio{Op: blk.Read, Sector: at}
	b.SetData(p)
	st := blk.Do(env.Real(), l.d, b)
	l.failed(b, st)
	if st != blk.OK {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.m.Check(p, at); err != nil {
		l.t.Error(err)
		return false
	}
	return true
}

// more waits for n more steps; false: the users have ended.
func (l *load) more(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n += l.steps; l.steps < n && l.ended < users; {
		l.cond.Wait()
	}
	return l.ended < users
}

// stop waits for the users and reads everything.
func (l *load) stop() {
	l.mu.Lock()
	l.done = true
	l.mu.Unlock()
	l.users.Wait()
	l.read(0, l.m.Sectors())
}
