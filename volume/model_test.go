package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"udm/blk"
	"udm/blk/blktest"
)

// model is what all objects and images are to hold. A change is entered when it is
// planned: what touches each other is planned one after the other, under the locks,
// so that this is the order in which it happens.
type model struct {
	mu      sync.Mutex // a leaf; guards all that follows
	objects map[string]*thing
	images  map[string]content
	wrong   []error
}

// content is the seed of the pattern in each sector; 0 stands for zeroes.
type content []uint64

// thing is an object.
type thing struct {
	kind  Kind
	holds content
	base  string // image; "": none
	file  string // it is the whole of this file; "": it is not
	of    *thing // it is a snapshot of that, which is still there
}

// entered is a change that is entered in the model once it is planned.
type entered struct {
	change
	enter func()
	in    *model
}

func (c entered) plan(m *Manager, op *operation) error {
	err := c.change.plan(m, op)
	if err == nil {
		c.in.mu.Lock()
		defer c.in.mu.Unlock()
		c.enter()
	}
	return err
}

func newModel() *model {
	return &model{objects: map[string]*thing{}, images: map[string]content{}}
}

// grown is a content with zeroes behind its end.
func (c content) grown(sectors uint64) content {
	n := make(content, max(uint64(len(c)), sectors))
	copy(n, c)
	return n
}

// object is an object that a planned change is about.
func (md *model) object(name string) *thing {
	o := md.objects[name]
	if o == nil {
		md.fail("there should be no %s", name)
		return &thing{}
	}
	return o
}

func (md *model) fail(format string, args ...any) {
	md.wrong = append(md.wrong, fmt.Errorf(format, args...))
}

// leave makes what an object was a file for itself, and its snapshots nobody's.
func (md *model) leave(o *thing) {
	if o.file != "" {
		md.images[o.file], o.file = slices.Clone(o.holds), ""
	}
	for _, s := range md.objects {
		if s.of == o {
			s.of = nil
		}
	}
}

func (md *model) clone(s CloneSpec) entered {
	return entered{&cloneImage{s}, func() {
		kind := Clone
		if s.Pool != "" {
			kind = Volume
		}
		for _, name := range s.Names {
			md.objects[name] = &thing{kind: kind, holds: md.images[s.Base].grown(s.Size / blk.SectorSize), base: s.Base}
		}
	}, md}
}

func (md *model) snapshot(s SnapshotSpec) entered {
	return entered{&takeSnapshot{s}, func() {
		o := md.object(s.Of)
		n := thing{kind: Snapshot, of: o}
		if o.kind == Volume {
			n.kind, n.base = Volume, o.base
		}
		for _, name := range s.Names {
			t := n
			t.holds = slices.Clone(o.holds)
			md.objects[name] = &t
		}
	}, md}
}

func (md *model) merge(name string) entered {
	return entered{&merge{name: name}, func() {
		o := md.object(name)
		switch {
		case o.kind == Clone:
			delete(md.images, o.base)
			o.kind, o.file, o.base = Disk, o.base, ""
			return
		case o.of == nil:
			md.fail("%s is merged, but what it was taken of is gone", name)
			return
		case o.kind == Snapshot:
			delete(md.objects, name)
		}
		o.of.holds = slices.Clone(o.holds)
	}, md}
}

func (md *model) reset(name string) entered {
	return entered{&reset{names: []string{name}}, func() {
		o := md.object(name)
		o.holds = md.images[o.base].grown(uint64(len(o.holds)))
		if o.kind == Volume {
			md.leave(o)
		}
	}, md}
}

func (md *model) resize(s ResizeSpec) entered {
	return entered{&resize{s}, func() {
		o := md.object(s.Name)
		o.holds = o.holds.grown(s.Size / blk.SectorSize)
	}, md}
}

func (md *model) rename(name, to string) entered {
	return entered{&rename{name, to}, func() {
		md.objects[to] = md.object(name)
		delete(md.objects, name)
	}, md}
}

func (md *model) remove(s RemoveSpec) entered {
	return entered{&removal{RemoveSpec: RemoveSpec{Names: []string{s.Name}}}, func() {
		md.leave(md.object(s.Name))
		delete(md.objects, s.Name)
	}, md}
}

func (md *model) move(name, path string, flat bool) entered {
	return entered{&moveTo{name: name, path: path, flat: flat}, func() {
		o := md.object(name)
		md.leave(o)
		if flat {
			*o = thing{kind: Disk, holds: o.holds, file: path}
			return
		}
		md.images[path] = slices.Clone(o.holds)
		*o = thing{kind: Clone, holds: o.holds, base: path}
	}, md}
}

func (md *model) copyOut(name, path string) entered {
	return entered{&copyOut{name, path}, func() { md.images[path] = slices.Clone(md.object(name).holds) }, md}
}

func (md *model) copyIn(path, name string) entered {
	return entered{&copyIn{path, name}, func() { copy(md.object(name).holds, md.images[path]) }, md}
}

// scribble is a user who writes to an object that nobody changes meanwhile.
type scribble struct {
	name              string
	at, sectors, seed uint64
}

func (c *scribble) kind() string                    { return "write" }
func (c *scribble) touches(*Manager) (claim, error) { return claim{objects: []string{c.name}}, nil }

func (c *scribble) plan(m *Manager, _ *operation) (err error) {
	o, err := m.object(c.name)
	if err != nil {
		return err
	}
	h, err := o.dev.Open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	return errors.Join(blk.WriteSectors(m.env, h, blktest.Pattern(c.at, c.sectors, c.seed), c.at, 0), blk.FlushDevice(m.env, h))
}

func (md *model) write(c *scribble) entered {
	return entered{c, func() {
		o := md.object(c.name)
		for i := range c.sectors {
			o.holds[c.at+i] = c.seed
		}
	}, md}
}

// drop removes an image that nothing depends on.
type drop struct{ path string }

func (c *drop) kind() string                    { return "drop" }
func (c *drop) touches(*Manager) (claim, error) { return claim{objects: []string{c.path}}, nil }

func (c *drop) plan(m *Manager, _ *operation) error {
	if us := m.uses(c.path); len(us) > 0 {
		return refuse(0, "%s depends on it", us[0])
	}
	return m.files.Remove([]string{c.path})
}

func (md *model) drop(path string) entered {
	return entered{&drop{path}, func() { delete(md.images, path) }, md}
}

// compare returns what differs from the model, while nothing is under way.
func (md *model) compare(m *Manager) error {
	md.mu.Lock()
	defer md.mu.Unlock()
	errs := slices.Clone(md.wrong)
	seen := 0
	for _, have := range m.Objects() {
		if have.Kind == Pool {
			continue
		}
		seen++
		o := md.objects[have.Name]
		if o == nil || o.kind != have.Kind {
			errs = append(errs, fmt.Errorf("%s is a %s, the model has %+v", have.Name, have.Kind, o))
			continue
		}
		errs = append(errs, md.holds(m, place{Device: have.Name}, o.holds))
		if o.file != "" {
			errs = append(errs, md.holds(m, place{File: o.file}, o.holds))
		}
	}
	if seen != len(md.objects) {
		errs = append(errs, fmt.Errorf("there are %d objects, the model has %d", seen, len(md.objects)))
	}
	for path, want := range md.images {
		errs = append(errs, md.holds(m, place{File: path}, want))
	}
	return errors.Join(errs...)
}

func (md *model) holds(m *Manager, p place, want content) (err error) {
	d, err := m.open(p, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if got := d.Limits().Size; got != uint64(len(want)) {
		return fmt.Errorf("%+v has %d sectors, want %d", p, got, len(want))
	}
	buf := make([]byte, len(want)*blk.SectorSize)
	if err := blk.ReadSectors(m.env, d, buf, 0); err != nil {
		return fmt.Errorf("%+v: %w", p, err)
	}
	for i, seed := range want {
		if err := sectorIs(buf[i*blk.SectorSize:][:blk.SectorSize], uint64(i), seed); err != nil {
			return fmt.Errorf("%+v: %w", p, err)
		}
	}
	return nil
}

func sectorIs(p []byte, sector, seed uint64) error {
	if seed != 0 {
		return blktest.Check(p, sector, seed)
	}
	if slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) {
		return fmt.Errorf("sector %d is not zero", sector)
	}
	return nil
}

// image makes an image of a pattern, and enters it.
func (md *model) image(m *Manager, path string, sectors, seed uint64) error {
	if err := m.files.Make([]File{{Path: path, Size: sectors * blk.SectorSize}}); err != nil {
		return err
	}
	d, err := m.files.Open(path, true)
	if err != nil {
		return err
	}
	md.images[path] = slices.Repeat(content{seed}, int(sectors))
	return errors.Join(blk.WriteSectors(m.env, d, blktest.Pattern(0, sectors, seed), 0, 0), blk.FlushDevice(m.env, d), d.Close())
}

// settled reports whether nothing is under way.
func settled(m *Manager) bool { return len(m.Operations()) == 0 }

// start puts images and a pool on an empty machine.
func (md *model) start(m *Manager, dir string) error {
	return errors.Join(md.image(m, dir+"/i.img", 128, 1), md.image(m, dir+"/j.img", 96, 2),
		m.CreatePool(context.Background(), PoolSpec{Name: "p", Size: 64 << 20}))
}
