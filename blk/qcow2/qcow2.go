// Package qcow2 reads qcow2 images: versions 2 and 3, clusters compressed by zlib and
// zstd, extended L2 entries, external data files, and chains of backing files in the
// formats qcow2 and raw. It writes nothing. Internal snapshots are ignored: it shows
// the current state. Encrypted images are refused.
//
// The format is described in docs/interop/qcow2.rst of qemu.
//
// # How a byte is found
//
//	L1 table ──▶ L2 table ──▶ cluster      if missing: the backing file, else zeroes
//
// Tables are read in pages of 4 KiB. Pages and decompressed clusters share one cache
// of fixed size with LRU replacement.
//
// # Hostile images
//
// Sizes, offsets and the length of chains are checked and bounded; memory is bounded
// by the cache and a few clusters per worker. An inconsistent table causes an I/O
// error of the bio that meets it. But an image determines which files of this machine
// its chain names, and whoever can read the disk can read those. Check the images of
// strangers first (qemu-img info). If an image does not give the format of its
// backing file, the format is detected from the file's first bytes.
//
// # Work
//
// Package readdev makes a device of an image. Lock order: cache.mu is a leaf.
package qcow2

import (
	"context"
	"errors"
	"fmt"

	"udm/blk"
	"udm/blk/readdev"
	"udm/env"
)

// Options configure how an image is read.
type Options struct {
	// Zstd decompresses a zstd frame at the start of src into dst. nil: images that
	// need it are refused.
	Zstd func(dst, src []byte) error
	// Cache is the size of the cache in bytes; 0: 16 MiB.
	Cache int
}

// image is an open image, the source of a device.
type image struct {
	readdev.Last
	name  string
	chain []*layer // the image, its backing file, and so on
	zstd  func(dst, src []byte) error
	cache *cache
}

// Open opens an image and its backing files for reading.
func Open(e env.Env, path string, o Options) (*readdev.Device, error) {
	return open(e, path, openFile, o)
}

func open(e env.Env, path string, files opener, o Options) (*readdev.Device, error) {
	chain, err := openChain(path, files, o)
	if err != nil {
		return nil, err
	}
	if o.Cache <= 0 {
		o.Cache = 16 << 20
	}
	i := &image{name: "qcow2:" + path, chain: chain, zstd: o.Zstd, cache: newCache(o.Cache)}
	return readdev.New(e, i, chain[0].size/blk.SectorSize), nil
}

func (d *image) String() string { return d.name }

// Read implements [readdev.Source].
func (d *image) Read(_ context.Context, p []byte, sector uint64) error {
	for off := sector * blk.SectorSize; len(p) > 0; {
		n, err := d.readRun(0, p, off)
		if err != nil {
			return d.Note(err)
		}
		p, off = p[n:], off+uint64(n)
	}
	return d.Note(nil)
}

// readRun reads the first bytes of p at off, from a layer or those below it, as far
// as they are stored in one place.
func (d *image) readRun(depth int, p []byte, off uint64) (int, error) {
	if depth == len(d.chain) || off >= d.chain[depth].size {
		clear(p)
		return len(p), nil
	}
	l := d.chain[depth]
	r, err := d.find(l, off)
	if err != nil {
		return 0, err
	}
	p = p[:min(uint64(len(p)), r.length)]
	switch r.kind {
	case absent:
		return d.readRun(depth+1, p, off)
	case zero:
		clear(p)
	case data:
		err = readFull(l.data, p, int64(r.host))
	case compressed:
		var c []byte
		if c, err = d.cluster(l, r); err == nil {
			copy(p, c[off%l.clusterSize():])
		}
	}
	return len(p), err
}

// Extents is the allocation map of the image with its backing files; a raw backing
// file is data.
func (d *image) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	const steps = 4096
	var list []blk.Extent
	off, end := sector*blk.SectorSize, (sector+sectors)*blk.SectorSize
	for i := 0; off < end && (i < steps || len(list) == 0); i++ {
		n, isData, err := d.extent(off, end-off)
		if err != nil {
			return nil, err
		}
		list = blk.AppendExtent(list, blk.Extent{Sector: off / blk.SectorSize, Sectors: n / blk.SectorSize, Data: isData})
		off += n
	}
	return list, nil
}

// extent returns how many of n bytes at off are of one kind, and whether they are
// data.
func (d *image) extent(off, n uint64) (uint64, bool, error) {
	for _, l := range d.chain {
		if off >= l.size {
			return n, false, nil
		}
		r, err := d.find(l, off)
		if err != nil {
			return 0, false, err
		}
		n = min(n, r.length)
		if r.kind != absent {
			return n, r.kind != zero, nil
		}
	}
	return n, false, nil
}

// Close implements [readdev.Source].
func (d *image) Close() error { return closeChain(d.chain) }

func closeChain(chain []*layer) error {
	var errs []error
	for _, l := range chain {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// broken is the error for a violation of the format.
func (l *layer) broken(format string, args ...any) error {
	return fmt.Errorf("%s is damaged: %s; see qemu-img check", l.path, fmt.Sprintf(format, args...))
}
