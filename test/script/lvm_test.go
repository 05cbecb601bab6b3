package script

import (
	"context"
	"os/exec"
	"slices"
	"testing"

	"udm/ctl"
	"udm/lvm/golden"
)

// The daemon is killed while a group is activated: the devices that are there then are
// whole, and to activate again makes the rest.
func TestKilledWhileActivating(t *testing.T) {
	root := shortDir(t)
	disks, err := golden.Write(t.TempDir(), "thin")
	if err != nil {
		t.Fatal(err)
	}
	client := ctl.NewClient(root)
	defer client.Close()
	activate := func() *exec.Cmd { return command(root, "lvm", "activate", "--over-clones", "-K", "thin", disks[0]) }
	for n := 1; n <= 9; n += 4 {
		killAt(t, root, client, activate(), n)
		d := startFor(t, root)
		ds, err := client.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithTable}})
		if err != nil || len(ds) < n/2 || slices.ContainsFunc(ds, notWhole) {
			t.Errorf("%d: %v, %+v", n, err, ds)
		}
		for _, cmd := range []*exec.Cmd{activate(), command(root, "lvm", "deactivate", "thin")} {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%d: %v: %s", n, err, out)
			}
		}
		if ds, err := client.List(context.Background(), ctl.Query{}); err != nil || len(ds) > 0 {
			t.Errorf("%d: there are still %+v, %v", n, ds, err)
		}
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func notWhole(d ctl.Device) bool { return !d.Live || d.Suspended || len(d.Table) == 0 }

// killAt starts a daemon and a command, and kills the daemon when it has created the nth
// device.
func killAt(t *testing.T, root string, client *ctl.Client, cmd *exec.Cmd, n int) {
	t.Helper()
	d := startFor(t, root)
	events, err := client.Events(t.Context())
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == ctl.EventCreated {
			n--
		}
		if n == 0 {
			break
		}
	}
	if err := d.kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it fails, or was done by then
}
