//go:build linux

package vhost

import (
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/need"
	"udm/test/program"
)

var kernel = flag.String("kernel", "", "folder of the guest's kernel and its modules: see kernel.sh")

func TestMain(m *testing.M) { program.Main(m) }

// rig is a daemon with disks, from the first of which a machine has booted.
type rig struct {
	*testing.T
	*daemon
	m *machine
}

// newRig returns nil where there is no kernel: make test-qemu has one.
func newRig(t *testing.T) *rig {
	if *kernel == "" {
		return nil
	}
	need.Tools(t, "qemu-system-x86_64", "syslinux", "mcopy", "mkfs.vfat")
	r := &rig{T: t, daemon: startDaemon(t)}
	image := filepath.Join(t.TempDir(), "image")
	makeImage(t, *kernel, image)
	r.makeDisks(image)
	r.m = startMachine(t, r.sockets(".sock"))
	r.m.booted()
	return r
}

// TestMachine boots from a device by SeaBIOS, uses it and a thin volume by the kernel's driver
// with two queues each, with split and packed rings, and resets the machine. The daemon is
// killed and replaced under load, and the machine paused.
func TestMachine(t *testing.T) {
	r := newRig(t)
	if r == nil {
		return
	}
	if got, want := r.m.do("disks"), "vda=boot,2,split vdb=thin,2,packed"; got != want {
		t.Errorf("the guest has the disks %q, want %q", got, want)
	}
	if log := r.m.firmware(); strings.Count(log, "Booting from Hard Disk") != 1 {
		t.Errorf("the firmware says\n%s", log)
	}
	r.m.do("load")
	for range 3 {
		r.m.do("more 100")
		r.restart()
		r.m.do("more 100")
		r.replace()
		r.m.do("more 100")
		r.m.pause()
	}
	r.m.do("more 100")
	sum := r.stop()

	r.m.tell("reboot")
	r.m.booted()
	if log := r.m.firmware(); strings.Count(log, "Booting from Hard Disk") != 2 {
		t.Errorf("the firmware says\n%s", log)
	}
	if got := r.m.do("sum"); got != sum {
		t.Errorf("after a reset there is %s, was %s", got, sum)
	}
	r.m.do("load")
	r.m.do("more 100")
	r.stop()
}

// stop ends the load; the host sees what the guest has written.
func (r *rig) stop() string {
	r.Helper()
	sum, requests, _ := strings.Cut(r.m.do("stop"), " ")
	r.Logf("%s requests", requests)
	if got := r.sum(); got != sum {
		r.Errorf("the host sees %s, the guest %s", got, sum)
	}
	return sum
}

// TestMigration moves a machine to another QEMU under load, and back. What the server writes
// to the guest's memory meanwhile must go along.
func TestMigration(t *testing.T) {
	r := newRig(t)
	if r == nil {
		return
	}
	r.m.do("load")
	for _, suffix := range []string{".other", ".sock"} {
		r.m.do("more 50")
		r.migrate(r.sockets(suffix))
		r.m.do("more 200")
	}
	r.stop()
}

// migrate moves the machine to a new QEMU, whose disks are at other sockets of the same devices.
func (r *rig) migrate(sockets []string) {
	r.Helper()
	to := startMachine(r.T, sockets, "-incoming", "defer")
	uri := "unix:" + filepath.Join(to.dir, "migration.sock")
	must(r.T, to.monitor.do("migrate-incoming", map[string]any{"uri": uri}))
	from := r.m.monitor
	must(r.T, from.do("migrate-set-capabilities", map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}}))
	must(r.T, from.do("migrate-set-parameters", map[string]any{"max-bandwidth": 16 << 20, "downtime-limit": 2000}))
	must(r.T, from.do("migrate", map[string]any{"uri": uri}))
	for status := ""; status != "completed"; {
		e, err := from.next("MIGRATION")
		must(r.T, err)
		if status = e.Data.Status; status == "failed" {
			r.Fatal("the migration failed")
		}
	}
	_, err := to.monitor.next("RESUME")
	must(r.T, err)
	r.m.end()
	r.m = to
}
