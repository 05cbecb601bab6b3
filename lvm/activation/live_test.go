package activation

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/leaf"
	"udm/ctl"
	"udm/env"
	"udm/lvm"
	"udm/lvm/edit"
)

// live changes a group while its volumes are active, by way of a service.
func (r *rig) live(s ctl.Service, group string, change func(*edit.Edit) error) (err error) {
	r.Helper()
	r.scan(r.disks, group, func(g *lvm.Assembled) {
		var l *Live
		if l, err = Examine(r.Context(), s, g); err == nil {
			err = r.changeLive(l, g, change)
		}
	})
	return err
}

func (r *rig) changeLive(l *Live, g *lvm.Assembled, change func(*edit.Edit) error) error {
	devices, err := l.Open()
	if err != nil {
		return err
	}
	var open []blk.Device
	defer func() {
		for _, d := range open {
			must(r.T, d.Close())
		}
		must(r.T, l.Close())
	}()
	served := *g
	served.Disks = map[string]*lvm.Found{}
	for pv, d := range g.Disks {
		dev, err := r.Open(ctl.Ref{Name: devices[d.Name]}, true)
		must(r.T, err)
		open = append(open, dev)
		found := *d
		found.Device = dev
		served.Disks[pv] = &found
	}
	ed, err := edit.New(env.Real(), &served, edit.Author{Host: "host", Time: time.Unix(1700000000, 0), Command: "test"})
	must(r.T, err)
	ed.UsePools(l)
	if err = change(ed); err == nil {
		err = ed.Commit()
	}
	if err == nil {
		err = l.Follow(ed.After())
	}
	return err
}

// reader reads a device again and again until stop is called, which returns how often it
// was whole.
func (r *rig) reader(name string) (stop func() int) {
	r.Helper()
	d, err := r.Open(ctl.Ref{Name: name}, false)
	must(r.T, err)
	read := func(p []byte) error { return blk.ReadSectors(env.Real(), d, p, 0) }
	first := make([]byte, d.Limits().Size*blk.SectorSize)
	must(r.T, read(first))
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for p := make([]byte, len(first)); ; n++ {
			if err := read(p); err != nil || !bytes.Equal(p, first) {
				r.Errorf("%s: read %d is not what it was: %v", name, n, err)
			}
			select {
			case <-end:
				ended <- n
				return
			default:
			}
		}
	}()
	return func() int { close(end); n := <-ended; must(r.T, d.Close()); return n }
}

// sizes are the sectors of the devices that users open.
func (r *rig) sizes(group string) map[string]uint64 {
	r.Helper()
	ds, err := r.List(r.Context(), ctl.Query{})
	must(r.T, err)
	sizes := map[string]uint64{}
	for _, d := range ds {
		if strings.HasPrefix(d.Name, group) && !hidden(d.UUID, d.Name) {
			sizes[d.Name] = d.Sectors
		}
		if d.Suspended {
			r.Errorf("%s is still suspended", d.Name)
		}
	}
	return sizes
}

// Volumes are changed while they are read, and so are those that others are made of.
// Activated again, they are the same.
func TestLive(t *testing.T) {
	r := newRig(t, "plain")
	r.activate("lin-vg", Options{Mode: Writable, Skip: true})
	stop := r.reader("lin--vg-a")
	for _, change := range []func(*edit.Edit) error{
		func(ed *edit.Edit) error { return ed.Resize("a", 9) },
		func(ed *edit.Edit) error { return ed.CreateSnapshot(edit.Snapshot{Name: "s", Origin: "a", Extents: 4}) },
		func(ed *edit.Edit) error { return ed.Resize("striped", 16) },
		func(ed *edit.Edit) error { return ed.CreateVolume(edit.Volume{Name: "new", Extents: 3}) },
		func(ed *edit.Edit) error { return ed.Rename("b-c", "other") },
		func(ed *edit.Edit) error { return ed.RenameGroup("vg") },
	} {
		group := "lin-vg"
		if !slices.ContainsFunc(r.devices(), func(n string) bool { return strings.HasPrefix(n, "lin--vg-") }) {
			group = "vg"
		}
		must(t, r.live(r.Service, group, change))
	}
	if stop() == 0 {
		t.Error("nothing was read")
	}
	r.same("vg", map[string]uint64{"vg-a": 9 * 512, "vg-s": 9 * 512, "vg-striped": 16 * 512, "vg-new": 3 * 512, "vg-other": 5 * 512})
}

// same fails unless the devices have these sizes, now and when they are activated again.
func (r *rig) same(group string, want map[string]uint64) {
	r.Helper()
	for _, when := range []string{"now", "activated again"} {
		got := r.sizes(group + "-")
		for name, sectors := range want {
			if got[name] != sectors {
				r.Errorf("%s: %s has %d sectors, want %d", when, name, got[name], sectors)
			}
		}
		r.deactivate(group, "")
		r.nothing()
		if when == "now" {
			r.activate(group, Options{Mode: Writable, Skip: true})
		}
	}
}

// The same for a thin pool, which gets its messages while it is in use. A snapshot has what
// its origin had.
func TestLivePool(t *testing.T) {
	r := newRig(t, "plain")
	r.own()
	r.activate("thin", Options{Mode: Writable, Skip: true})
	must(t, r.write("thin-t1", 1))
	before, err := r.sum("thin-t1")
	must(t, err)
	stop := r.reader("thin-t1")
	for _, change := range []func(*edit.Edit) error{
		func(ed *edit.Edit) error { return ed.CreateThinSnapshot("moment", "t1", false) },
		func(ed *edit.Edit) error { return ed.CreateThin(edit.Thin{Name: "first", Pool: "bare", Extents: 7}) },
		func(ed *edit.Edit) error { return ed.Resize("pool", 200) },
		func(ed *edit.Edit) error { return ed.ResizeMetadata("pool", 40) },
		func(ed *edit.Edit) error { return ed.Resize("first", 20000) },
		func(ed *edit.Edit) error { return ed.Rename("pool", "tank") },
	} {
		must(t, r.live(r.Service, "thin", change))
	}
	if stop() == 0 {
		t.Error("nothing was read")
	}
	r.activate("thin", Options{Mode: Writable, Skip: true})
	if after, err := r.sum("thin-moment"); after != before {
		t.Errorf("the snapshot is not what its origin was: %v", err)
	}
	r.same("thin", map[string]uint64{"thin-tank": 200 * 128, "thin-first": 20000 * 128, "thin-t1": 100 * 128})
}

// own makes a group with two pools on a disk that the others do not use.
func (r *rig) own() {
	r.Helper()
	name := r.disks[len(r.disks)-1]
	d, _, err := leaf.New(env.Real()).Open(name, true)
	must(r.T, err)
	ed, err := edit.Create(env.Real(), "thin", 128, edit.Author{Host: "host", Time: time.Unix(1700000000, 0), Command: "test"})
	must(r.T, err)
	must(r.T, errors.Join(ed.AddDisks(lvm.Scan(env.Real(), []lvm.Disk{{Name: name, Device: d}}).Disks, false),
		ed.CreatePool(edit.Pool{Name: "pool", Extents: 60}), ed.CreatePool(edit.Pool{Name: "bare", Extents: 30}),
		ed.CreateThin(edit.Thin{Name: "t1", Pool: "pool", Extents: 100}), ed.Commit(), d.Close()))
}

// What is refused while volumes are active.
func TestLiveRefuses(t *testing.T) {
	r := newRig(t, "plain")
	nothing := func(*edit.Edit) error { return nil }
	r.activate("lin-vg", Options{Mode: ReadOnly})
	r.wants(r.live(r.Service, "lin-vg", nothing), "it is active in another way; deactivate the group first: udm lvm deactivate lin-vg")
	r.deactivate("lin-vg", "")
	r.activate("lin-vg", Options{Mode: Writable})
	r.wants(r.live(r.Service, "lin-vg", func(ed *edit.Edit) error { return ed.Remove("a") }), "a is active; deactivate it first: udm lvm deactivate lin-vg/a")
	r.wants(r.live(r.Service, "lin-vg", func(*edit.Edit) error { return r.live(r.Service, "lin-vg", nothing) }), "another command is changing the group")
	r.scan(r.disks, "lin-vg", func(g *lvm.Assembled) { // one that was killed
		l, err := Examine(r.Context(), r.Service, g)
		must(t, err)
		_, err = l.Open()
		must(t, err)
	})
	must(t, r.live(r.Service, "lin-vg", func(ed *edit.Edit) error { return ed.Resize("a", 9) }))
	r.deactivate("lin-vg", "")
	r.nothing()
}

func (f *failing) Load(ctx context.Context, l ctl.Load) (ctl.Device, error) {
	if f.fails() {
		return ctl.Device{}, errFailed
	}
	return f.Service.Load(ctx, l)
}

func (f *failing) Suspend(ctx context.Context, s ctl.Suspend) (ctl.Device, error) {
	if f.fails() {
		return ctl.Device{}, errFailed
	}
	return f.Service.Suspend(ctx, s)
}

// When a step fails, whichever it is, all devices can be used, and to activate the group
// again makes them those of its text.
func TestLiveFails(t *testing.T) {
	for n := 0; ; n += stride() {
		r := newRig(t, "plain")
		r.own()
		r.activate("thin", Options{Mode: Writable, Skip: true})
		before := r.sizes("thin-")
		err := r.live(&failing{r.Service, n, false}, "thin", func(ed *edit.Edit) error {
			return errors.Join(ed.Resize("pool", 200), ed.CreateThinSnapshot("moment", "t1", false), ed.Resize("t1", 300))
		})
		for name := range r.sizes("thin-") {
			if _, failed := r.sum(name); failed != nil {
				t.Errorf("%d: %s: %v", n, name, failed)
			}
		}
		r.deactivate("thin", "")
		r.nothing()
		r.activate("thin", Options{Mode: Writable, Skip: true})
		now := r.sizes("thin-")
		if _, changed := now["thin-moment"]; changed && (now["thin-pool"] != 200*128 || now["thin-t1"] != 300*128) || !changed && !maps.Equal(now, before) {
			t.Errorf("%d: %v after %v", n, now, before)
		}
		r.deactivate("thin", "")
		if err == nil {
			if n < 10 {
				t.Errorf("there were %d steps only", n)
			}
			return
		}
		r.wants(err, errFailed.Error())
	}
}
