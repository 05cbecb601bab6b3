package volume

import (
	"errors"
	"maps"
	"strings"
	"syscall"
	"testing"
)

func (r *rig) labels(name string, want map[string]string) {
	r.t.Helper()
	o, err := r.m.Object(name)
	if r.ok(err); !maps.Equal(o.Labels, want) {
		r.t.Errorf("%s has labels %v, want %v", name, o.Labels, want)
	}
}

// Labels are set when objects are made, change one by one, and stay with the object
// whatever happens to it.
func TestLabels(t *testing.T) {
	h := furnished(t)
	k := map[string]string{"k": "v"}
	r := boot(t, h)
	r.task(func() {
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"c1", "c2"}, Labels: k}))
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "v", Names: []string{"c3"}, Labels: k}))
		r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "c1", Names: []string{"s1"}, Labels: map[string]string{"s": "t"}}))
		r.ok(r.m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "n", Size: 1 << 20, Labels: k}))
		r.ok(receiveOf(r.m, ReceiveSpec{Name: "got", Pool: "q", Labels: k}, ""))
		r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "pool", Size: 1 << 20, Labels: k}))
		for _, name := range []string{"c1", "c2", "c3", "n", "got", "pool"} {
			r.labels(name, k)
		}
		r.labels("s1", map[string]string{"s": "t"})

		r.ok(r.m.Label(ctx, LabelSpec{"c1", map[string]string{"k": "", "a": "1", "b": "2"}}))
		now := map[string]string{"a": "1", "b": "2"}
		r.ok(r.m.Rename(ctx, "c1", "r1"))
		r.ok(r.m.Rollback(ctx, "s1"))
		r.labels("r1", now)
		r.ok(r.m.Flatten(ctx, "r1", "/img/flat.img"))
		r.settle()
		r.labels("r1", now)
		r.ok(r.m.Commit(ctx, "n", "/img/new.img"))
		r.settle()
		r.labels("n", k)
		r.ok(r.m.Resize(ctx, ResizeSpec{Name: "c3", Size: 200 << 9}))
		r.ok(r.m.Label(ctx, LabelSpec{"x", k}))
		r.ok(r.m.Merge(ctx, "x"))
		r.settle()
		r.ok(r.m.Flatten(ctx, "c3", "/img/flat3.img"))
		r.settle()
	})
	r.stop()
	r = boot(t, r.h.clone())
	r.task(func() {
		r.labels("r1", map[string]string{"a": "1", "b": "2"})
		for _, name := range []string{"c2", "c3", "n", "x", "got", "pool"} {
			r.labels(name, k)
		}
	})
	r.stop()
}

func TestLabelsThatAreRefused(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		big := map[string]string{"k": strings.Repeat("v", mostLabels)}
		for name, c := range map[string]struct {
			err  error
			want error
		}{
			"too large":       {r.m.Label(ctx, LabelSpec{"a", big}), syscall.E2BIG},
			"new with them":   {r.m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "w", Size: 1 << 20, Labels: big}), syscall.E2BIG},
			"no such object":  {r.m.Label(ctx, LabelSpec{"none", big}), syscall.ENXIO},
			"part of another": {r.m.Label(ctx, LabelSpec{"d-real", map[string]string{"k": "v"}}), syscall.EBUSY},
		} {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%s: %v, want %v", name, c.err, c.want)
			}
		}
	})
	r.stop()
}
