package fs

import (
	"testing"
)

// TestSnapshotUnderLoad takes snapshots of a mounted file system that is being
// written. Each is what a power cut at that moment would have left: it mounts, by
// replaying its journal, holds every file that was durable, and is sound.
func TestSnapshotUnderLoad(t *testing.T) {
	needs(t, tools...)
	for _, s := range []struct {
		stack
		take, drop func(r *rig)
	}{
		{stackNamed("thin"), takeThin, dropThin},
		{stack{"origin", makeOrigin, nil}, takeCopy, dropCopy},
	} {
		for _, f := range filesystems {
			if !*all && (s.name == "thin") != (f.name == "ext4") {
				continue
			}
			t.Run(s.name+"/"+f.name, func(t *testing.T) { snapshots(newRig(t), s.stack, f, s.take, s.drop) })
		}
	}
}

func snapshots(r *rig, s stack, f filesystem, take, drop func(*rig)) {
	s.make(r)
	device := r.attach("disk")
	f.make(r, device)
	dir := r.mount(device, "")
	l := startLoad(r, dir)
	for range *times {
		n, err := l.more(10)
		r.must(err)
		take(r)
		lookInto(r, f, n)
		drop(r)
	}
	r.Logf("%d snapshots are sound; the last holds %d durable files", *times, l.kill())
	r.unmount(dir)
	f.fsck(r, device)
}

// lookInto mounts the device "snap" and finds n durable files there.
func lookInto(r *rig, f filesystem, n int64) {
	r.Helper()
	device := r.attach("snap")
	dir := r.mount(device, f.snapshotOpts)
	r.must(check(dir, n))
	r.unmount(dir)
	f.fsck(r, device)
	r.detach("snap")
}

func takeThin(r *rig) {
	r.whileSuspended("disk", func() { r.message("pool", "create_snap 2 1") })
	r.create("snap", devSize*perMiB, "thin /dev/mapper/pool 2")
}

func dropThin(r *rig) {
	r.remove("snap")
	r.message("pool", "delete 2")
}

// takeCopy makes a snapshot whose store holds the origin's old content.
func takeCopy(r *rig) {
	store := r.file("store", devSize+50)
	r.whileSuspended("disk", func() {
		r.create("snap", devSize*perMiB, "snapshot /dev/mapper/real %s P 16", store)
	})
}

func dropCopy(r *rig) { r.whileSuspended("disk", func() { r.remove("snap") }) }
