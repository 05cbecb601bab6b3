package volume

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/linear"
	"udm/targets/snapshot"
	"udm/targets/thin"
)

// CloneSpec is a request to make clones.
type CloneSpec struct {
	// Base is the absolute path of an image, or the name of a device. A device that
	// is writable is first kept as it is now, as by Snapshot.
	Base  string   `json:"base"`
	Names []string `json:"names"`          // names of the clones; either all are made or none
	Size  uint64   `json:"size,omitempty"` // bytes; 0: that of the base
	// Store is the file for the changes of a single clone; "": it gets a new one. An
	// existing store is reused if it belongs to the base.
	Store     string `json:"store,omitempty"`
	StoreSize uint64 `json:"storeSize,omitempty"` // capacity of a store in bytes; 0: all of the clone
	Pool      string `json:"pool,omitempty"`      // pool that keeps the changes instead of stores; "": none
	// Lazy makes copies of the base that are in use at once and copied in the background;
	// then they do not need the base any more. The base may be any disk that a table can name.
	Lazy bool `json:"lazy,omitempty"`
	// Labels are those of each clone.
	Labels map[string]string `json:"labels,omitempty"`
}

// Clone makes writable copies of a base. They take space only for what is written to
// them.
func (m *Manager) Clone(ctx context.Context, s CloneSpec) error {
	s.Base = strings.TrimPrefix(s.Base, mapperDir)
	if s.Lazy {
		return m.lazily(ctx, s)
	}
	o, err := m.object(s.Base)
	if err != nil {
		return m.run(ctx, &cloneImage{s})
	}
	if o.kind != Volume && o.readOnly && o.real == "" {
		return m.run(ctx, &cloneDevice{cloneImage{s}})
	}
	switch {
	case s.Size != 0 && s.Size != o.sectors*blk.SectorSize:
		return refuse(syscall.EINVAL, "a clone of %s has the same size; resize the clone afterwards", s.Base)
	case s.Pool != "" && (o.kind != Volume || mapped(o.volume().Pool) != s.Pool):
		return refuse(syscall.EINVAL, "%s is writable and not in the pool %s; clone it without a pool, or commit it into an image first", s.Base, s.Pool)
	}
	return m.Snapshot(ctx, SnapshotSpec{Of: s.Base, Names: s.Names, Store: s.Store, StoreSize: s.StoreSize, Labels: s.Labels})
}

// chunk is the chunk size of new stores, in sectors.
const chunk = 16

// storeSize is the size in bytes of a full store for a device: a header, the chunks,
// and areas with an entry of 16 bytes for each chunk.
func storeSize(sectors uint64) uint64 {
	chunks := (sectors + chunk - 1) / chunk
	perArea := uint64(chunk * blk.SectorSize / 16)
	return (1 + chunks/perArea + 1 + chunks + 1) * chunk * blk.SectorSize
}

type cloneImage struct{ CloneSpec }

func (c *cloneImage) kind() string { return "clone" }

func (c *cloneImage) touches(*Manager) (claim, error) {
	cl := claim{objects: c.Names, shared: []string{c.Base}}
	if c.Store != "" {
		cl.objects = append(cl.objects[:len(cl.objects):len(cl.objects)], c.Store)
	}
	if c.Pool != "" {
		cl.objects = append(cl.objects[:len(cl.objects):len(cl.objects)], c.Pool)
	}
	return cl, nil
}

func (c *cloneImage) check(m *Manager) error {
	switch {
	case !filepath.IsAbs(c.Base) && !m.exists(c.Base):
		return refuse(syscall.ENXIO, "there is no device named %q; give the name of a device or the absolute path of an image", c.Base)
	case c.Store != "" && !filepath.IsAbs(c.Store):
		return refuse(syscall.EINVAL, "the store %s is not an absolute path", c.Store)
	case c.Store != "" && (len(c.Names) > 1 || c.Pool != ""):
		return refuse(syscall.EINVAL, "a store can only be given for one clone that is not in a pool")
	}
	return c.CloneSpec.check(m)
}

// check is what holds for every kind of clones.
func (c *CloneSpec) check(m *Manager) error {
	switch {
	case len(c.Names) == 0:
		return refuse(syscall.EINVAL, "give a name for the clone")
	case !valid(c.Labels):
		return errLabels
	case c.Size%blk.SectorSize != 0 || c.StoreSize%blk.SectorSize != 0:
		return refuse(syscall.EINVAL, "the size must be a multiple of %d bytes", blk.SectorSize)
	}
	return m.free(c.Names...)
}

func (c *cloneImage) plan(m *Manager, op *operation) error {
	if err := c.check(m); err != nil {
		return err
	}
	img, err := m.image(c.Base)
	if err != nil {
		return err
	}
	whole := img.Size / blk.SectorSize
	s := &cloneShape{spec: &c.CloneSpec, origin: img.Path, base: &img.Base, tail: img.tail,
		origSectors: whole, sectors: (img.Size + blk.SectorSize - 1) / blk.SectorSize}
	return s.plan(m, op)
}

// cloneDevice clones a read-only device.
type cloneDevice struct{ cloneImage }

func (c *cloneDevice) plan(m *Manager, op *operation) error {
	if err := c.check(m); err != nil {
		return err
	}
	o, err := m.object(c.Base)
	if err != nil {
		return err
	}
	if !o.readOnly {
		return refuse(syscall.EBUSY, "%s has become writable; try again", c.Base)
	}
	s := &cloneShape{spec: &c.CloneSpec, origin: dev(o.name), origSectors: o.sectors, sectors: o.sectors}
	return s.plan(m, op)
}

// cloneShape is how clones of a base are built. If a clone is longer than its base,
// or the base does not end at a sector boundary, there is a device NAME-base between
// the two.
type cloneShape struct {
	spec                 *CloneSpec
	origin               string // as tables name it
	base                 *Base
	tail                 []byte
	origSectors, sectors uint64

	files   []File
	volumes steps
	devices []Device
	notes   []string // files that describe a reused store
}

func (s *cloneShape) plan(m *Manager, op *operation) error {
	if size := s.spec.Size / blk.SectorSize; size != 0 {
		if size < s.sectors {
			return refuse(syscall.EINVAL, "%s is larger than this size; a clone cannot be smaller than its base", s.spec.Base)
		}
		s.sectors = size
	}
	var ids []uint32
	if s.spec.Pool != "" {
		var err error
		if ids, err = m.freeIDs(s.spec.Pool, len(s.spec.Names)); err != nil {
			return err
		}
	}
	for i, name := range s.spec.Names {
		r := Record{Base: s.base, Labels: s.spec.Labels}
		origin := s.under(m, name, &r)
		if ids != nil {
			s.volume(name, ids[i], origin, r)
		} else if err := s.store(m, name, origin, r); err != nil {
			return err
		}
	}
	if len(s.files) > 0 {
		op.Add = append(op.Add, &makeFiles{s.files})
	}
	op.Add = append(append(op.Add, s.volumes...), &createDevices{s.devices})
	if len(s.notes) > 0 {
		op.Then = steps{&removeFiles{Paths: s.notes}}
	}
	return nil
}

// under returns the device that a clone is based on.
func (s *cloneShape) under(m *Manager, name string, r *Record) string {
	if s.sectors == s.origSectors {
		return s.origin
	}
	d := Device{Name: name + baseSuffix, ReadOnly: true}
	at := s.origSectors
	d.Table = append(d.Table, dm.NewSpec(0, at, &linear.Line{Place: dm.Place{Device: s.origin}}))
	if len(s.tail) > 0 {
		f := File{Path: m.unused(filepath.Join(m.root, "stores", name+".tail")), Size: blk.SectorSize, Text: s.tail}
		s.files, r.Files = append(s.files, f), append(r.Files, f.Path)
		d.Table = append(d.Table, dm.NewSpec(at, 1, &linear.Line{Place: dm.Place{Device: f.Path}}))
		at++
	}
	if at < s.sectors {
		d.Table = append(d.Table, dm.Spec{Start: at, Len: s.sectors - at, Type: "zero"})
	}
	s.devices = append(s.devices, d)
	return dev(d.Name)
}

func (s *cloneShape) volume(name string, id uint32, origin string, r Record) {
	s.volumes = append(s.volumes, &createVolume{Pool: s.spec.Pool, ID: id})
	s.devices = append(s.devices, Device{Name: name, Record: r, Table: []dm.Spec{
		dm.NewSpec(0, s.sectors, &thin.ThinLine{Pool: dev(s.spec.Pool), ID: id, Origin: origin})}})
}

func (s *cloneShape) store(m *Manager, name, origin string, r Record) error {
	path := s.spec.Store
	if path == "" {
		path = m.unused(m.storePath(name))
	} else if err := m.reuse(path, s.base); err != nil {
		return err
	}
	line := storeLine(origin, path)
	if _, err := m.files.Stat(path); err == nil {
		s.notes = []string{path + noteSuffix}
	} else {
		size := s.spec.StoreSize
		if size == 0 {
			size = storeSize(s.sectors)
		}
		s.files = append(s.files, storeFile(line, size))
	}
	r.Files = append(r.Files, path)
	s.devices = append(s.devices, Device{Name: name, Record: r, Table: []dm.Spec{
		dm.NewSpec(0, s.sectors, line)}})
	return nil
}

// storeFile is a new store of a number of bytes for a line. It is a store already, so
// that the target need not make and flush one.
func storeFile(l *snapshot.Line, size uint64) File {
	f := File{Path: l.COW, Size: size}
	if l.Persistent && l.Chunk != 0 {
		f.Text = snapshot.EmptyStore(uint32(l.Chunk))
	}
	return f
}

func storeLine(origin, path string) *snapshot.Line {
	return &snapshot.Line{Origin: origin, COW: path, Persistent: true, Chunk: chunk}
}
