// Package targettest supports tests of targets: a set of mapped devices over
// memory disks that tables name a, b, c, …
package targettest

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

// Sectors is the size of every disk.
const Sectors = 16384

// Rig is a Control in a stepped simulator. Its disks are memory disks behind
// gates, which are open at first; disk a has the number 7:0, b 7:1, and so on.
type Rig struct {
	testing.TB
	Sim     *env.Sim
	Control *dm.Control
	disks   *disks
}

// New returns a rig whose tables may use types. The test's cleanup closes it and
// checks that closing succeeds. tune changes the limits of the disks.
func New(t testing.TB, types []*dm.Type, tune ...func(*blk.Limits)) *Rig {
	sim := env.NewStepped()
	var opts []memdev.Option
	for _, f := range tune {
		opts = append(opts, memdev.Tune(f))
	}
	r := &Rig{TB: t, Sim: sim, disks: &disks{opts: opts, gate: func(d blk.Device) blk.Device {
		g := blktest.NewGate(sim, d)
		g.Open()
		return g
	}}}
	r.Control = dm.NewControl(sim, r.disks, types...)
	t.Cleanup(r.close)
	return r
}

func (r *Rig) close() {
	for _, d := range r.disks.made {
		d.dev.(*blktest.Gate).Open()
	}
	r.Sim.Run()
	if err := r.Control.Close(); err != nil {
		r.Error(err)
	}
}

// Disk is the memory of a disk.
func (r *Rig) Disk(name string) *memdev.Device { return r.disks.get(name).mem }

// Gate is the gate in front of a disk.
func (r *Rig) Gate(name string) *blktest.Gate { return r.disks.get(name).dev.(*blktest.Gate) }

// Must fails the test if err is not nil.
func (r *Rig) Must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// Device creates a running device from the text of a table.
func (r *Rig) Device(name, table string) *dm.Device {
	r.Helper()
	d, err := r.Control.Create(name, "", -1)
	r.Must(err)
	r.Swap(d, table)
	return d
}

// ReadOnly is Device for a read-only table.
func (r *Rig) ReadOnly(name, table string) *dm.Device {
	r.Helper()
	d, err := r.Control.Create(name, "", -1)
	r.Must(err)
	r.SwapReadOnly(d, table)
	return d
}

// Swap loads another table into a device and makes it live.
func (r *Rig) Swap(d *dm.Device, table string) {
	r.Helper()
	r.swap(d, table, dm.Mode{Write: true})
}

// SwapReadOnly is Swap for a read-only table.
func (r *Rig) SwapReadOnly(d *dm.Device, table string) {
	r.Helper()
	r.swap(d, table, dm.Mode{})
}

func (r *Rig) swap(d *dm.Device, table string, m dm.Mode) {
	r.Helper()
	specs, err := dm.ParseTable(table)
	r.Must(err)
	r.Must(d.Load(specs, m))
	r.Must(d.Resume(context.Background(), false))
}

// Suspend and Resume act as the user's commands.
func (r *Rig) Suspend(d *dm.Device, noflush bool) {
	r.Helper()
	r.Must(d.Suspend(context.Background(), noflush))
}

func (r *Rig) Resume(d *dm.Device) {
	r.Helper()
	r.Must(d.Resume(context.Background(), false))
}

// Lines checks the text of a device's targets as dmsetup prints it.
func (r *Rig) Lines(d *dm.Device, kind dm.StatusKind, want string) {
	r.Helper()
	if got := dm.FormatTable(d.Lines(kind, false, 0)); got != want+"\n" {
		r.Errorf("%s: got  %q\nwant %q", d.Name(), got, want+"\n")
	}
}

var errnos = map[string]syscall.Errno{"EINVAL": syscall.EINVAL, "ENOENT": syscall.ENOENT, "ENODEV": syscall.ENODEV, "ENOMEM": syscall.ENOMEM}

// Refuses takes lines "TABLE => ERRNO REASON". It loads each table and checks that
// loading fails with that errno and reason and leaves nothing behind.
func (r *Rig) Refuses(lines string) {
	r.Helper()
	d, err := r.Control.Create("refuses", "", -1)
	r.Must(err)
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		table, want, _ := strings.Cut(strings.TrimSpace(line), "=>")
		errno, reason, _ := strings.Cut(strings.TrimSpace(want), " ")
		specs, err := dm.ParseTable(table)
		r.Must(err)
		err = d.Load(specs, dm.Mode{Write: true})
		var e *dm.Error
		if !errors.As(err, &e) || e.Errno != errnos[errno] || e.Reason != reason {
			r.Errorf("%s\ngot  %v", line, err)
		}
		if d.Status().Inactive || r.disks.opens != 0 {
			r.Fatalf("%s: an inactive table or %d opens are left", line, r.disks.opens)
		}
	}
}

// Message sends a message to sector 0 and checks the answer. errno 0: no error.
func (r *Rig) Message(d *dm.Device, text, reply string, errno syscall.Errno) {
	r.Helper()
	got, err := d.Message(0, text)
	if got != reply || dm.ErrnoOf(err) != errno {
		r.Errorf("message %s: %q, %v; want %q, %v", text, got, err, reply, errno)
	}
}
