package nbddev_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
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
