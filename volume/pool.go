package volume

import (
	"context"
	"path/filepath"
	"slices"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/thin"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

// PoolSpec is a request to make a pool. Sizes are in bytes.
type PoolSpec struct {
	Name         string            `json:"name"`
	Size         uint64            `json:"size"`
	Metadata     uint64            `json:"metadata,omitempty"`     // 0: enough for the size and a thousand volumes
	Block        uint64            `json:"block,omitempty"`        // 0: 64 KiB
	Dir          string            `json:"dir,omitempty"`          // directory of its files; "": below the root
	FailWhenFull bool              `json:"failWhenFull,omitempty"` // writes fail at once instead of waiting for space
	Labels       map[string]string `json:"labels,omitempty"`
}

// CreatePool makes a pool with files of its own.
func (m *Manager) CreatePool(ctx context.Context, s PoolSpec) error {
	if s.Block == 0 {
		s.Block = 64 << 10
	}
	if s.Dir == "" {
		s.Dir = filepath.Join(m.root, "pools", s.Name)
	}
	if s.Metadata == 0 {
		s.Metadata = metadataSize(s.Size, s.Block)
	}
	return m.run(ctx, &createPool{s})
}

// The smallest and the largest metadata device, in bytes.
const minMetadata, maxMetadata = 2 << 20, 255 * (1 << 14) * 4096

// wholeMetadata is the largest metadata file, in bytes, that takes all its space when it
// is made or grows, so that a full disk does not hold up commits.
const wholeMetadata = 64 << 20

func metadataSize(size, block uint64) uint64 {
	n := thintools.MetadataSize(block, size, 1000)
	return min(max((n+4095)/4096*4096, minMetadata), maxMetadata)
}

type createPool struct{ PoolSpec }

func (c *createPool) kind() string { return "pool create" }

func (c *createPool) touches(*Manager) (claim, error) {
	return claim{objects: []string{c.Name}}, nil
}

func (c *createPool) plan(m *Manager, op *operation) error {
	blocks := c.Size / c.Block
	switch {
	case blocks == 0:
		return refuse(syscall.EINVAL, "a pool of %d bytes is too small: a block has %d bytes", c.Size, c.Block)
	case !valid(c.Labels):
		return errLabels
	case !filepath.IsAbs(c.Dir):
		return refuse(syscall.EINVAL, "the directory %s is not an absolute path", c.Dir)
	case c.Block%blk.SectorSize != 0 || c.Metadata%4096 != 0:
		return refuse(syscall.EINVAL, "the block size must be a multiple of %d bytes, the metadata size of 4096", blk.SectorSize)
	}
	if err := m.free(c.Name); err != nil {
		return err
	}
	data, meta := filepath.Join(c.Dir, c.Name+".data"), filepath.Join(c.Dir, c.Name+".metadata")
	line := &thin.PoolLine{Metadata: meta, Data: data, BlockSectors: c.Block / blk.SectorSize, LowWater: blocks / 20, ErrorIfNoSpace: c.FailWhenFull}
	op.Add = steps{
		&makeFiles{[]File{{Path: data, Size: blocks * c.Block}, {Path: meta, Size: c.Metadata, Whole: c.Metadata <= wholeMetadata}}},
		&createDevices{[]Device{{Name: c.Name, Record: Record{Files: []string{data, meta}, Labels: c.Labels},
			Table: []dm.Spec{dm.NewSpec(0, blocks*line.BlockSectors, line)}}}},
	}
	return nil
}

// GrowPool makes a pool larger while it is in use. 0 leaves the size of data or
// metadata as it is. Sizes are in bytes.
func (m *Manager) GrowPool(ctx context.Context, name string, size, metadata uint64) error {
	return m.run(ctx, &growPool{name, size, metadata})
}

type growPool struct {
	name           string
	size, metadata uint64
}

func (g *growPool) kind() string                    { return "pool grow" }
func (g *growPool) touches(*Manager) (claim, error) { return claim{objects: []string{g.name}}, nil }

func (g *growPool) plan(m *Manager, op *operation) error {
	o, err := m.kindOf(g.name, Pool)
	if err != nil {
		return err
	}
	if g.size == 0 && g.metadata == 0 {
		return refuse(syscall.EINVAL, "give the new size of %s", g.name)
	}
	l := o.pool()
	g.size -= g.size % (l.BlockSectors * blk.SectorSize)
	for _, f := range []struct {
		path string
		size uint64
	}{{l.Data, g.size}, {l.Metadata, g.metadata}} {
		if f.size == 0 {
			continue
		}
		s, err := m.growing(g.name, f.path, f.size)
		if err != nil {
			return err
		}
		s.Whole = f.path == l.Metadata && f.size <= wholeMetadata
		op.Add = append(op.Add, s)
	}
	if g.size != 0 {
		o.sectors = g.size / blk.SectorSize
	}
	d := o.device(l)
	d.Reload = true // the table does not say how large the metadata are
	op.Then = steps{&swapTables{Devices: []Device{d}}}
	return nil
}

// growing returns the step that makes a file of an object longer.
func (m *Manager) growing(name, path string, size uint64) (*growFile, error) {
	st, err := m.files.Stat(path)
	switch {
	case err != nil:
		return nil, refuse(syscall.EINVAL, "%s is stored on %s, which is not a file; grow that first and load a longer table", name, path)
	case size < st.Size:
		return nil, refuse(syscall.EINVAL, "%s has %d bytes and cannot shrink; copy its content to a smaller one", path, st.Size)
	}
	return &growFile{Path: path, From: st.Size, To: size}, nil
}

// kindOf returns an object, or an error if it is not of one of the kinds.
func (m *Manager) kindOf(name string, kinds ...Kind) (*object, error) {
	o, err := m.object(name)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(kinds, o.kind) {
		return nil, o.is(kinds[0])
	}
	return o, nil
}

// is refuses an object that is not of the kind; "": any kind.
func (o *object) is(kind Kind) error {
	if kind == "" || kind == o.kind {
		return nil
	}
	if o.kind == Hydrating {
		return hydrating(o)
	}
	return refuse(syscall.EINVAL, "%s is a %s, not a %s; udm status %s shows it", o.name, o.kind, kind, o.name)
}

// freeIDs returns the lowest ids of a pool that no volume has, and that no volume had
// of which there are snapshots: a rollback must not mistake another volume for it.
func (m *Manager) freeIDs(pool string, n int) ([]uint32, error) {
	o, err := m.kindOf(pool, Pool)
	if err != nil {
		return nil, err
	}
	used, err := thin.Volumes(o.dev)
	if err != nil {
		return nil, err
	}
	taken := m.snapshotted()
	for _, id := range used {
		taken[id] = true
	}
	var free []uint32
	for id := uint32(0); id <= thinmeta.MaxID && len(free) < n; id++ {
		if !taken[id] {
			free = append(free, id)
		}
	}
	if len(free) < n {
		return nil, refuse(syscall.ENOSPC, "the pool %s has no ids left for %d volumes; use another pool", pool, n)
	}
	return free, nil
}

// snapshotted returns the ids of volumes, of any pool, of which there are snapshots.
func (m *Manager) snapshotted() map[uint32]bool {
	ids := make(map[uint32]bool)
	for _, d := range m.control.List() {
		if of := m.devices.Record(d.Name()).Of; of != nil {
			ids[*of] = true
		}
	}
	return ids
}

// VolumeSpec is a request to make an empty volume in a pool.
type VolumeSpec struct {
	Pool   string            `json:"pool"`
	Name   string            `json:"name"`
	Size   uint64            `json:"size"` // bytes
	Labels map[string]string `json:"labels,omitempty"`
}

// CreateVolume makes an empty volume in a pool.
func (m *Manager) CreateVolume(ctx context.Context, s VolumeSpec) error {
	return m.run(ctx, &newVolume{s})
}

type newVolume struct{ VolumeSpec }

func (v *newVolume) kind() string { return "volume create" }

func (v *newVolume) touches(*Manager) (claim, error) {
	return claim{objects: []string{v.Name, v.Pool}}, nil
}

func (v *newVolume) plan(m *Manager, op *operation) error {
	switch {
	case v.Size == 0 || v.Size%blk.SectorSize != 0:
		return refuse(syscall.EINVAL, "the size of a volume must be a multiple of %d bytes", blk.SectorSize)
	case !valid(v.Labels):
		return errLabels
	}
	if err := m.free(v.Name); err != nil {
		return err
	}
	ids, err := m.freeIDs(v.Pool, 1)
	if err != nil {
		return err
	}
	line := &thin.ThinLine{Pool: dev(v.Pool), ID: ids[0]}
	op.Add = steps{&createVolume{Pool: v.Pool, ID: ids[0]},
		&createDevices{[]Device{{Name: v.Name, Record: Record{Labels: v.Labels},
			Table: []dm.Spec{dm.NewSpec(0, v.Size/blk.SectorSize, line)}}}}}
	return nil
}
