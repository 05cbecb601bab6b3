package nbddev_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	"udm/blk/nbddev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// poolOn is a thin volume of as many sectors as there are in a pool, whose data is on a
// disk elsewhere and whose metadata is here.
type poolOn struct {
	t          *testing.T
	data, meta blk.Device
	c          *dm.Control
	thin       *dm.Device
}

const thinSectors = 3072

// Open makes it a [dm.Opener].
func (p *poolOn) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	switch name {
	case "data":
		return open{p.data}, dm.Number{Major: 7}, nil
	case "meta":
		return open{p.meta}, dm.Number{Major: 7, Minor: 1}, nil
	}
	return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "no disk %s", name)
}

// open is a device that outlives the table.
type open struct{ blk.Device }

func (open) Close() error { return nil }

func (p *poolOn) device(name, format string, args ...any) *dm.Device {
	p.t.Helper()
	specs, err := dm.ParseTable(fmt.Sprintf(format, args...))
	if err != nil {
		p.t.Fatal(err)
	}
	d, err := p.c.Create(name, "", -1)
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// start starts the pool, for the first time or again.
func (p *poolOn) start() {
	p.t.Helper()
	first := p.c == nil
	p.c = dm.NewControl(env.Real(), p, all.Types()...)
	pool := p.device("pool", "0 %d thin-pool meta data 128 0", imageSectors)
	if first {
		if _, err := pool.Message(0, "create_thin 0"); err != nil {
			p.t.Fatal(err)
		}
	}
	p.thin = p.device("thin", "0 %d thin /dev/mapper/pool 0", thinSectors)
}

func (p *poolOn) stop() {
	if err := p.c.Close(); err != nil {
		p.t.Error(err)
	}
}

// volume opens the thin volume.
func (p *poolOn) volume() blk.Device {
	p.t.Helper()
	d, err := p.thin.Open(true)
	if err != nil {
		p.t.Fatal(err)
	}
	return checkdev.New(d, checkdev.Options{}) // which writes zeroes where the volume does not
}

// loaded runs verified load on a thin volume on a disk while harm is done between portions
// of it, n times, and reads all again from a restarted pool.
func loaded(t *testing.T, disk blk.Device, n int, fails bool, harm func()) {
	p := &poolOn{t: t, data: disk, meta: memdev.New(16 << 11)}
	p.start()
	d := p.volume()
	l := blktest.StartLoad(t, d, thinSectors, fails)
	for range n {
		if !l.More(10 + rand.IntN(40)) {
			break
		}
		harm()
	}
	l.Stop()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	p.stop()
	p.start()
	l.D = p.volume()
	l.Read(0, thinSectors)
	l.D.Close()
	p.stop()
}

// formats are those of images that qemu-nbd serves, and what nbdkit serves.
func formats() map[string]func(socket, image string) []string {
	list := map[string]func(socket, image string) []string{
		"nbdkit memory": func(socket, _ string) []string {
			return []string{"nbdkit", "-f", "-U", socket, "memory", fmt.Sprint(imageSectors * 512)}
		},
	}
	for _, format := range []string{"qcow2", "vmdk", "vdi", "vhdx", "vpc"} {
		list["qemu-nbd "+format] = func(socket, image string) []string {
			made := image + "." + format
			serve := []string{"qemu-nbd", "-f", format, "-t", "-e", "8", "-x", "disk", "-k", socket, made}
			if _, err := os.Stat(made); err == nil {
				return serve
			}
			o := []string{"create", "-q", "-f", format, made, fmt.Sprint(imageSectors * 512)}
			if format == "vpc" {
				o = slices.Insert(o, 4, "-o", "force_size=on")
			}
			_ = exec.Command("qemu-img", o...).Run() // qemu-nbd says so if it fails
			return serve
		}
	}
	return list
}

// A thin pool stands on the servers of others, whatever their images: verified.
func TestThinPoolOnFormats(t *testing.T) {
	for name, args := range formats() {
		t.Run(name, func(t *testing.T) {
			blktest.Leaks(t)
			p := newProgram(t, args)
			p.start()
			d := p.open()
			loaded(t, d, restarts(50), false, func() {})
			d.Close()
		})
	}
}

// It stands while these are killed, and started again.
func TestThinPoolOnRestarted(t *testing.T) {
	for name, args := range programs {
		t.Run(name, func(t *testing.T) {
			blktest.Leaks(t)
			p := newProgram(t, args)
			p.start()
			d := p.open()
			loaded(t, d, restarts(4*p.share()), name == "nbdkit delay and retry", func() { p.kill(); p.start() })
			d.Close()
		})
	}
}

// It stands on connections that are cut anywhere, in half a message too, and that are
// slow, to a server that dies and forgets.
func TestThinPoolOnBadConnections(t *testing.T) {
	blktest.Leaks(t)
	r := newRemote(t, memdev.New(imageSectors, memdev.Volatile))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := &badly{rng: rand.New(rand.NewPCG(seed, 0))}
	r.shape = b.connection
	r.start()
	var d blk.Device
	for { // the first handshake may be cut
		x, err := r.tryOpen(nbddev.Options{})
		if err == nil {
			d = x
			break
		}
	}
	loaded(t, d, restarts(4), false, func() {
		r.restart(func(d *memdev.Device) *memdev.Device { return d.CrashClone(rand.Uint64()) })
	})
	if n := r.dials.Load(); n < int64(restarts(4)) {
		t.Errorf("it connected %d times", n)
	}
	d.Close()
}

// badly makes connections that do not last, deliver in pieces, and are slow at times.
type badly struct {
	mu  sync.Mutex
	rng *rand.Rand // guarded by mu
}

func (b *badly) n(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rng.IntN(n)
}

func (b *badly) connection(c net.Conn) io.ReadWriteCloser {
	return &pieces{&cut{Conn: c, left: int64(1000 + b.n(1<<20))}, b}
}

// pieces reads and writes a few bytes at a time.
type pieces struct {
	*cut
	b *badly
}

func (p *pieces) Read(q []byte) (int, error) { return p.cut.Read(q[:1+p.b.n(len(q))]) }

func (p *pieces) Write(q []byte) (n int, err error) {
	for n < len(q) && err == nil {
		if p.b.n(50) == 0 {
			time.Sleep(time.Millisecond) // the harm itself: the network is slow
		}
		var m int
		m, err = p.cut.Write(q[n : n+1+p.b.n(len(q)-n)])
		n += m
	}
	return n, err
}
