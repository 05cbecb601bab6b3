//go:build linux

package server

import (
	"flag"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"udm/blk/blktest"
	"udm/blk/nbddev"
	"udm/ctl"
	"udm/env"
	"udm/export/vhost/driver"
)

var killings = flag.Int("killings", 2, "how often TestKilledUnderLoad kills the daemon")

// Clients that connect again wait while a daemon that was killed is started anew, get no error,
// and read what they wrote: of a file, and of a volume in a pool, which forgets at a kill what
// was not flushed.
func TestKilledUnderLoad(t *testing.T) {
	r := startReplaced(t, "")
	var loads []*blktest.Load
	for _, name := range []string{"disk", "v"} {
		o, err := nbddev.Parse("nbd+unix:///" + name + "?socket=" + filepath.Join(r.root, ctl.NBDSocket))
		r.must(err)
		d, err := nbddev.Open(env.Real(), o)
		r.must(err)
		t.Cleanup(func() { r.must(d.Close()) })
		loads = append(loads, blktest.StartLoad(t, d, 2048, false))
	}
	for range *killings {
		for _, l := range loads {
			l.More(100)
		}
		r.kill()
	}
	for _, l := range loads {
		l.More(100)
		l.Stop()
		l.Read(0, 2048)
	}
}

// Virtual machines, whose requests in flight are recorded, likewise.
func TestKilledUnderVirtualMachines(t *testing.T) {
	r := startReplaced(t, "")
	for i, name := range slices.Concat(together, alone) {
		v, err := driver.Open(r.socket(name), driver.Options{Queues: 1, Slots: 1, Block: blockSize, Packed: i%2 == 1, Reconnects: true})
		r.must(err)
		t.Cleanup(v.Close)
		r.clients.Go(func() { r.use(overVhost{v.Queues[0]}, 0, rand.New(rand.NewPCG(uint64(i), 2))) })
	}
	for range *killings {
		r.run(200)
		r.kill()
	}
	r.run(200)
	r.stop()
	t.Logf("%d kills, %d I/Os, the longest took %v", *killings, r.count.Load(), time.Duration(r.longest.Load()).Round(time.Millisecond))
}

// kill kills the daemon and starts another one, as a service manager does.
func (r *replaced) kill() {
	r.t.Helper()
	r.must(r.cmd.Process.Kill())
	_ = r.cmd.Wait()
	_ = syscall.Unmount(filepath.Join(r.root, "mnt"), syscall.MNT_DETACH) // which was its own
	r.out.Close()
	r.start("")
	r.ready()
}
