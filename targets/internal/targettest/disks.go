package targettest

import (
	"maps"
	"slices"
	"syscall"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
)

// disks is the Opener of rigs. It creates a disk when it is first named.
type disks struct {
	opts  []memdev.Option
	gate  func(blk.Device) blk.Device // wraps each disk
	made  map[string]*disk
	opens int
}

type disk struct {
	mem *memdev.Device
	dev blk.Device
	num dm.Number
}

func (ds *disks) get(name string) *disk {
	if ds.made == nil {
		ds.made = map[string]*disk{}
	}
	d := ds.made[name]
	if d == nil {
		d = ds.add(name, memdev.New(Sectors, ds.opts...))
	}
	return d
}

func (ds *disks) add(name string, mem *memdev.Device) *disk {
	d := &disk{mem: mem, dev: ds.gate(mem), num: dm.Number{Major: 7, Minor: uint32(name[0] - 'a')}}
	ds.made[name] = d
	return d
}

func (ds *disks) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	if len(name) != 1 || name[0] < 'a' || name[0] > 'z' {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "no disk %s", name)
	}
	d := ds.get(name)
	ds.opens++
	return &opened{d.dev, ds}, d.num, nil
}

// opened is an open handle of a disk; the disk outlives it.
type opened struct {
	blk.Device
	disks *disks
}

func (o *opened) Close() error { o.disks.opens--; return nil }

func (o *opened) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(o.Device, sector, sectors), nil
}

// crash returns the disks as they are after a power cut.
func (ds *disks) crash(seed uint64) *disks {
	names := slices.Sorted(maps.Keys(ds.made))
	var mems []*memdev.Device
	for _, name := range names {
		mems = append(mems, ds.made[name].mem)
	}
	after := &disks{opts: ds.opts, gate: ds.gate, made: map[string]*disk{}}
	for i, mem := range memdev.CrashClones(seed, mems...) {
		after.add(names[i], mem)
	}
	return after
}
