package volume

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/targets/clone"
	"udm/targets/linear"
	"udm/targets/snapshot"
)

// The settings of a new hydration: regions of 64 KiB, eight of them in one read, and eight
// such reads at a time, since a source may be far away.
const regionSectors, hydrationThreshold, hydrationBatch = 128, 64, 8

// lazyClone makes objects that copy their source while they are used. Each is a file of
// its own under a target that hydrates it; see finish.
type lazyClone struct{ CloneSpec }

func (c *lazyClone) kind() string { return "clone" }

func (c *lazyClone) touches(*Manager) (claim, error) {
	return claim{objects: c.Names, shared: []string{c.Base}}, nil
}

func (c *lazyClone) plan(m *Manager, op *operation) error {
	if c.Store != "" || c.StoreSize != 0 || c.Pool != "" {
		return refuse(syscall.EINVAL, "a lazy clone is a file of its own; give no store or pool")
	}
	if err := c.check(m); err != nil {
		return err
	}
	src, err := m.sourceOf(c.Base)
	if err != nil {
		return err
	}
	sectors := cmp.Or(c.Size/blk.SectorSize, src.sectors)
	if sectors < src.sectors {
		return refuse(syscall.EINVAL, "%s is larger than this size; a clone cannot be smaller than its base", c.Base)
	}
	var files []File
	var devices []Device
	for _, name := range c.Names {
		fs, d := c.one(m, name, src, sectors)
		files, devices = append(files, fs...), append(devices, d)
	}
	op.Add = steps{&makeFiles{files}, &createDevices{devices}}
	return nil
}

// one is the files and the device of one clone. What is behind the end of the source is
// only in the file.
func (c *lazyClone) one(m *Manager, name string, src source, sectors uint64) ([]File, Device) {
	data, meta := m.unused(filepath.Join(m.root, "stores", name+".img")), m.unused(filepath.Join(m.root, "stores", name+".hydration"))
	files := []File{{Path: data, Size: sectors * blk.SectorSize}, {Path: meta, Size: hydrationSize(src.sectors), Whole: true}}
	d := Device{Name: name, Record: Record{Files: []string{data, meta}, Base: src.base, Source: c.Base, Labels: c.Labels}}
	d.Table = []dm.Spec{dm.NewSpec(0, src.sectors, &clone.Line{Metadata: meta, Dest: data, Source: src.word,
		RegionSectors: regionSectors, Threshold: hydrationThreshold, BatchSize: hydrationBatch})}
	if sectors > src.sectors {
		d.Table = append(d.Table, dm.NewSpec(src.sectors, sectors-src.sectors, &linear.Line{Place: dm.Place{Device: data, Start: src.sectors}}))
	}
	return files, d
}

// hydrationSize is the size in bytes of a file for the metadata of a hydration: a bit for
// each region, in blocks of 4 KiB, three times because blocks are never overwritten.
func hydrationSize(sectors uint64) uint64 {
	const perBlock = 509 * 64
	regions := (sectors + regionSectors - 1) / regionSectors
	return (64 + 3*(regions/perBlock+1)) * 4096
}

// source is what a lazy clone copies.
type source struct {
	word    string // as tables name it
	sectors uint64
	base    *Base // of an image; nil: of something else
}

// sourceOf opens a source, which must not change: an image, a read-only device, or any
// other disk that a table can name.
func (m *Manager) sourceOf(name string) (source, error) {
	if filepath.IsAbs(name) {
		img, err := m.image(name)
		if err == nil && len(img.tail) > 0 {
			err = refuse(syscall.EINVAL, "%s does not end at a sector boundary; extend it first: truncate -s %%512 %[1]s", name)
		}
		if err != nil {
			return source{}, err
		}
		return source{img.Path, img.Size / blk.SectorSize, &img.Base}, nil
	}
	if o, err := m.object(name); err == nil {
		if !o.readOnly {
			return source{}, refuse(syscall.EINVAL, "%s is writable and would change while it is copied; clone it without --lazy, or make a read-only device on a snapshot of it", name)
		}
		return source{word: dev(name), sectors: o.sectors}, nil
	}
	sectors, err := m.control.SizeOf(name)
	switch {
	case err != nil:
		return source{}, fmt.Errorf("source %s: %w", name, err)
	case sectors == 0:
		return source{}, refuse(syscall.EINVAL, "the source %s is smaller than a sector (512 bytes)", name)
	}
	return source{word: name, sectors: sectors}, nil
}

// hydration returns the line of an object that is hydrating, with snapshots or without.
func (o *object) hydration() *clone.Line { return o.lines[0].(*clone.Line) }

// hydrating refuses what waits until an object is hydrated.
func hydrating(o *object) error {
	return refuse(syscall.EBUSY, "%s is still being copied from %s; wait for it: udm ls %[1]s shows how far it is", o.name, o.record.Source)
}

// hydrates reports whether the first of a device's lines is the one that its record tells
// of: users may load tables of this target, too.
func hydrates(r *Record, lines []dm.Line) bool {
	if r.Source == "" || len(lines) == 0 {
		return false
	}
	_, is := lines[0].(*clone.Line)
	return is
}

// finish makes an object stand alone that is hydrated: its file becomes all of it, and
// the metadata go.
type finish struct{ name string }

func (c *finish) kind() string { return "finish" }

func (c *finish) touches(m *Manager) (claim, error) {
	o, err := m.object(c.name)
	if err != nil {
		return claim{}, err
	}
	return m.own(o), nil
}

func (c *finish) plan(m *Manager, op *operation) error {
	o, err := m.kindOf(c.name, Hydrating)
	if err != nil {
		return err
	}
	if !m.hydrated(o) {
		return refuse(syscall.EAGAIN, "%s is not hydrated yet", o.name)
	}
	l := o.hydration()
	alone := o.device(&linear.Line{Place: dm.Place{Device: l.Dest}})
	alone.Record.Source, alone.Record.Base, alone.Record.Files = "", nil, without(o.record.Files, l.Metadata)
	swapped := []Device{alone}
	if o.real != "" {
		real := alone
		real.Name, real.Record = o.real, m.devices.Record(o.real)
		front := o.device(&snapshot.OriginLine{Origin: dev(o.real)})
		front.Record = alone.Record
		swapped = []Device{front, real}
	}
	op.Then = steps{&swapTables{Devices: swapped}, &removeFiles{Paths: []string{l.Metadata}}}
	return nil
}

// hydrated reports whether all of an object is durable in its file.
func (m *Manager) hydrated(o *object) bool {
	d := o.dev
	if o.real != "" {
		d = mustName(m.control, o.real)
	}
	return d != nil && clone.Hydrated(d)
}

// lookForHydrated is the time between two looks for objects that are hydrated.
const lookForHydrated = time.Second

// finishHydrated finishes the objects that are hydrated, and comes again as long as there
// are others. It runs on the manager's queue.
func (m *Manager) finishHydrated() {
	again := false
	for _, d := range m.control.List() {
		if name := d.Name(); m.devices.Record(name).Source != "" && !m.finished(name) {
			again = true
		}
	}
	if again && m.ctx.Err() == nil {
		m.queue.QueueAfter(m.finishing, lookForHydrated)
	}
}

// finished reports whether there is nothing left to finish.
func (m *Manager) finished(name string) bool {
	o, err := m.object(name)
	switch {
	case err != nil: // it waits for its source
		return false
	case o.kind != Hydrating: // a user has loaded another table
		return true
	case !m.hydrated(o):
		return false
	}
	if err := m.run(m.ctx, &finish{name}); err != nil {
		m.log.Info("an object that is hydrated is not finished yet", "name", name, "reason", err)
		return false
	}
	m.log.Info("an object is hydrated and needs its source no more", "name", name, "source", o.record.Source)
	return true
}

// describeHydration tells of the source, and why hydration has stopped.
func (m *Manager) describeHydration(o *object, d *Description) {
	d.Base = strings.TrimPrefix(o.record.Source, mapperDir)
	from := o.dev
	if o.real != "" {
		from = mustName(m.control, o.real)
	}
	if from == nil {
		return
	}
	lines := from.Lines(dm.Info, false, dm.StatusNoflush)
	if len(lines) == 0 {
		return
	}
	switch st, err := clone.ParseStatus(lines[0].Params); {
	case err != nil:
	case st.State != clone.Figures:
		d.State = string(st.State)
	case st.ReadOnly:
		d.State = "hydration has stopped"
	}
}

// lazily makes lazy clones and has them finished later.
func (m *Manager) lazily(ctx context.Context, s CloneSpec) error {
	err := m.run(ctx, &lazyClone{s})
	m.queue.Queue(m.finishing)
	return err
}
