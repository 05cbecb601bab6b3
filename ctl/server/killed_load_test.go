//go:build linux

package server

import (
	"flag"
	"path/filepath"
	"syscall"
	"testing"

	"udm/blk/blktest"
	"udm/blk/nbddev"
	"udm/ctl"
	"udm/env"
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
