package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"udm/blk"
	"udm/ctl"
	"udm/env"
	"udm/pdata"
	"udm/targets/all"
	"udm/targets/thin"
	"udm/volume"
)

// volumes is a service with an image.
type volumes struct {
	*Service
	t     *testing.T
	root  string
	image string
}

func startVolumes(t *testing.T, root string) *volumes {
	t.Helper()
	s := started(t, root)
	must(t, s.Restore(context.Background()))
	v := &volumes{s, t, root, filepath.Join(root, "image")}
	if _, err := os.Stat(v.image); err != nil {
		must(t, os.WriteFile(v.image, make([]byte, 1<<20), 0o600))
	}
	return v
}

func (v *volumes) write(name string, value byte) {
	v.t.Helper()
	d, err := v.Open(ctl.Ref{Name: name}, true)
	must(v.t, err)
	sector := make([]byte, blk.SectorSize)
	sector[0] = value
	must(v.t, errors.Join(blk.WriteSectors(env.Real(), d, sector, 0, blk.FUA), d.Close()))
}

// holds expects what was written last.
func (v *volumes) holds(name string, value byte) {
	v.t.Helper()
	d, err := v.Open(ctl.Ref{Name: name}, false)
	must(v.t, err)
	sector := make([]byte, blk.SectorSize)
	must(v.t, errors.Join(blk.ReadSectors(env.Real(), d, sector, 0), d.Close()))
	if sector[0] != value {
		v.t.Errorf("%s holds %d, want %d", name, sector[0], value)
	}
}

// restarted is the service after it has ended in order.
func (v *volumes) restarted() *volumes {
	v.t.Helper()
	ended(v.t, v.Service)
	return startVolumes(v.t, v.root)
}

// Objects are kept, with what the volume manager knows of them, across restarts.
func TestVolumesAreKept(t *testing.T) {
	ctx := context.Background()
	v := startVolumes(t, t.TempDir())
	must(t, v.Clone(ctx, volume.CloneSpec{Base: v.image, Names: []string{"a", "b"}}))
	v.write("a", 1)
	must(t, v.Snapshot(ctx, volume.SnapshotSpec{Of: "a", Names: []string{"night"}}))
	v.write("a", 2)
	must(t, v.CreatePool(ctx, volume.PoolSpec{Name: "p", Size: 1 << 20}))
	must(t, v.CreateVolume(ctx, ctl.CreateVolume{Pool: "p", Name: "v", Size: 1 << 20}))
	v.write("v", 3)
	must(t, v.Snapshot(ctx, volume.SnapshotSpec{Of: "v", Names: []string{"vs"}}))
	v.write("v", 4)
	before, err := v.Objects(ctx)
	must(t, err)
	v = v.restarted()
	after, err := v.Objects(ctx)
	must(t, err)
	if len(after) != len(before) {
		t.Errorf("there is\n%+v\ninstead of\n%+v", after, before)
	}
	must(t, v.Rollback(ctx, ctl.Object{Name: "night"}))
	must(t, v.Rollback(ctx, ctl.Object{Name: "vs"}))
	v.holds("a", 1)
	v.holds("v", 3)
	must(t, v.RenameObject(ctx, ctl.RenameObject{Name: "a", NewName: "c"}))
	if err := v.Merge(ctx, ctl.Object{Name: "c"}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("merge beside a sibling: %v", err)
	}
	must(t, v.Flatten(ctx, ctl.ObjectFile{Name: "c", File: filepath.Join(v.root, "flat")}))
	v = v.restarted()
	v.holds("c", 1)
	for _, name := range []string{"b", "c", "v", "vs", "p"} {
		must(t, v.RemoveObject(ctx, volume.RemoveSpec{Name: name}))
	}
	v = v.restarted()
	ds, err := v.List(ctx, ctl.Query{})
	must(t, err)
	files, err := os.ReadDir(filepath.Join(v.root, "stores"))
	must(t, err)
	if len(ds) > 0 || len(files) > 0 {
		t.Errorf("there are still %+v and %v", ds, files)
	}
	ended(t, v.Service)
}

// A pool whose metadata alone grow has them at once, while its volumes are open, and after
// a restart.
func TestMetadataGrow(t *testing.T) {
	ctx := context.Background()
	v := startVolumes(t, t.TempDir())
	must(t, v.CreatePool(ctx, volume.PoolSpec{Name: "p", Size: 1 << 20, Metadata: 2 << 20}))
	must(t, v.CreateVolume(ctx, ctl.CreateVolume{Pool: "p", Name: "v", Size: 1 << 20}))
	d, err := v.Open(ctl.Ref{Name: "v"}, true)
	must(t, err)
	for _, metadata := range []uint64{4 << 20, 4 << 20, 8 << 20} {
		must(t, v.GrowPool(ctx, ctl.GrowPool{Name: "p", Metadata: metadata}))
		v.hasMetadata("p", metadata)
	}
	must(t, errors.Join(blk.WriteSectors(env.Real(), d, make([]byte, blk.SectorSize), 0, blk.FUA), d.Close()))
	v = v.restarted()
	v.hasMetadata("p", 8<<20)
	ended(t, v.Service)
}

// hasMetadata expects the size of a pool's metadata.
func (v *volumes) hasMetadata(pool string, want uint64) {
	v.t.Helper()
	d, err := v.Device(context.Background(), ctl.Query{Ref: ctl.Ref{Name: pool}, With: []ctl.With{ctl.WithStatus}})
	must(v.t, err)
	st, err := thin.ParsePoolStatus(d.Status[0].Params)
	must(v.t, err)
	if got := st.TotalMetadata * pdata.BlockSize; got != want {
		v.t.Errorf("the metadata of %s have %d bytes, want %d", pool, got, want)
	}
}

// What a user has suspended stays so, and what an operation suspends is not saved.
func TestSuspendsAreTheUsers(t *testing.T) {
	ctx := context.Background()
	v := startVolumes(t, t.TempDir())
	must(t, v.Clone(ctx, volume.CloneSpec{Base: v.image, Names: []string{"a"}}))
	_, err := v.Suspend(ctx, ctl.Suspend{Ref: ctl.Ref{Name: "a"}})
	must(t, err)
	before := known(t, v.Service)
	for name, do := range map[string]func() error{
		"snapshot": func() error { return v.Snapshot(ctx, volume.SnapshotSpec{Of: "a", Names: []string{"s"}}) },
		"merge":    func() error { return v.Merge(ctx, ctl.Object{Name: "a"}) },
		"reset":    func() error { return v.Reset(ctx, ctl.Objects{Name: "a"}) },
		"resize":   func() error { return v.Resize(ctx, volume.ResizeSpec{Name: "a", Size: 2 << 20}) },
	} {
		if err := do(); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("%s: %v", name, err)
		}
		if now := known(t, v.Service); now != before {
			t.Errorf("%s changed\n%s\nto\n%s", name, before, now)
		}
	}
	_, err = v.Resume(ctx, ctl.Suspend{Ref: ctl.Ref{Name: "a"}})
	must(t, err)
	must(t, v.Snapshot(ctx, volume.SnapshotSpec{Of: "a", Names: []string{"s"}}))
	if files := filesWith(t, v.root, `"suspended": true`); len(files) > 0 {
		t.Errorf("suspended is saved in %v", files)
	}
	ended(t, v.Service)
}

// Of an operation that finds no space to be saved, nothing is left.
func TestNoSpaceNoOperation(t *testing.T) {
	ctx := context.Background()
	for name, do := range map[string]func(v *volumes) error{
		"clone":    func(v *volumes) error { return v.Clone(ctx, volume.CloneSpec{Base: v.image, Names: []string{"b"}}) },
		"snapshot": func(v *volumes) error { return v.Snapshot(ctx, volume.SnapshotSpec{Of: "a", Names: []string{"s"}}) },
		"remove":   func(v *volumes) error { return v.RemoveObject(ctx, volume.RemoveSpec{Name: "a"}) },
	} {
		t.Run(name, func(t *testing.T) {
			root, disk := t.TempDir(), &full{}
			image := filepath.Join(root, "image")
			must(t, os.WriteFile(image, make([]byte, 1<<20), 0o600))
			s, err := New(Config{Root: root, Types: all.Types(), FS: disk})
			must(t, err)
			must(t, s.Restore(ctx))
			v := &volumes{s, t, root, image}
			must(t, v.Clone(ctx, volume.CloneSpec{Base: image, Names: []string{"a"}}))
			before := known(t, s)
			disk.on = true
			if err := do(v); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("it ends with %v", err)
			}
			if now := known(t, s); now != before {
				t.Errorf("there is\n%s\ninstead of\n%s", now, before)
			}
			disk.on = false
			v = v.restarted()
			if now := known(t, v.Service); now != before {
				t.Errorf("after a restart there is\n%s\ninstead of\n%s", now, before)
			}
			ended(t, v.Service)
		})
	}
}
