package sim

import (
	"context"
	"fmt"
	"math/rand/v2"

	"udm/blk"
	uvolume "udm/volume"
)

// newLazyObjects is objects whose clones are, for the most part, lazy: each copies the image
// into a file of its own while it is used, beside all other operations, and at some moment
// stands alone, by an operation that the manager begins itself.
func newLazyObjects(r *rand.Rand) scenario {
	o := newObjects(r).(*objects)
	o.lazy = true
	return o
}

// firstClone makes one of the clones that are there in the beginning.
func (o *objects) firstClone(name string) *operation {
	if o.lazy {
		return o.lazily(name, o.size)
	}
	return o.clone(name, "")
}

// newClone makes a clone of any kind.
func (o *objects) newClone(name string, r *rand.Rand) *operation {
	if o.lazy && r.IntN(4) > 0 {
		return o.lazily(name, o.size+8*r.Uint64N(4))
	}
	return o.clone(name, []string{"", "p"}[r.IntN(2)])
}

// lazily makes a lazy clone, at times longer than the image.
func (o *objects) lazily(name string, size uint64) *operation {
	return &operation{fmt.Sprintf("clone %s lazily, %d sectors", name, size), func(ctx context.Context) error {
		return o.srv.Clone(ctx, uvolume.CloneSpec{Base: imagePath, Names: []string{name}, Size: size * blk.SectorSize, Lazy: true})
	}, func(now map[string]uvolume.Object) bool { return now[name].Name != "" }, func() {
		t := &thing{model: o.base.Clone()}
		t.model.Resize(size)
		t.model.Write(o.size, size-o.size, 0, true)
		o.all[name] = t
	}}
}

// hydrate changes how an object is hydrated, and waits, at times until it is finished.
func (o *objects) hydrate(w *harness, x string, r *rand.Rand) {
	d, err := w.c.Name(x + "-real")
	if err != nil {
		d, err = w.c.Name(x)
	}
	if !w.right(err, "find %s", x) {
		return
	}
	text := []string{"disable_hydration", "enable_hydration", "hydration_threshold 1", "hydration_threshold 64"}[r.IntN(4)]
	_, err = d.Message(0, text)
	w.note("message %s: %s: %v", d.Name(), text, err) // it may be finished by now
	w.sleep(ms(r, 2500))
}

// isHydrating reports whether an object still needs its source.
func isHydrating(x uvolume.Object) bool { return x.Kind == uvolume.Hydrating }
