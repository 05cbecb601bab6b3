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
// Bios run on workers of the environment. Submit blocks while Depth bios are in
// flight; bios with NoWait end with WouldBlock. Lock order: Device.mu and cache.mu
// are leaves.
package qcow2

import (
	"errors"
	"fmt"
	"sync"

	"udm/blk"
	"udm/env"
)

// Depth is the maximum number of bios in flight.
const Depth = 64

// workers is the number of parallel reads.
const workers = 4

// Options configure how an image is read.
type Options struct {
	// Zstd decompresses a zstd frame at the start of src into dst. nil: images that
	// need it are refused.
	Zstd func(dst, src []byte) error
	// Cache is the size of the cache in bytes; 0: 16 MiB.
	Cache int
}

// Device is an open image.
type Device struct {
	name    string
	chain   []*layer // the image, its backing file, and so on
	limits  blk.Limits
	zstd    func(dst, src []byte) error
	cache   *cache
	workers env.Workers
	wait    env.Wait  // woken when a bio ends
	jobs    sync.Pool // of *job

	mu    sync.Mutex
	under int // guarded by mu; bios in flight
}

// job is a bio being processed by the workers.
type job struct {
	bio  *blk.Bio
	work env.Work
}

// Open opens an image and its backing files for reading.
func Open(e env.Env, path string, o Options) (*Device, error) {
	return open(e, path, openFile, o)
}

func open(e env.Env, path string, files opener, o Options) (*Device, error) {
	chain, err := openChain(path, files, o)
	if err != nil {
		return nil, err
	}
	if o.Cache <= 0 {
		o.Cache = 16 << 20
	}
	d := &Device{
		name: "qcow2:" + path, chain: chain, zstd: o.Zstd, cache: newCache(o.Cache),
		workers: e.NewWorkers("qcow2", workers, Depth, nil), wait: e.NewWait(),
	}
	d.limits = blk.DefaultLimits(chain[0].size / blk.SectorSize)
	d.limits.ReadOnly, d.limits.NoWait = true, true
	d.jobs.New = func() any {
		j := &job{}
		j.work.Fn = func() { d.run(j) }
		return j
	}
	return d, nil
}

// Limits implements [blk.Device].
func (d *Device) Limits() blk.Limits { return d.limits }

func (d *Device) String() string { return d.name }

// Submit implements [blk.Device].
func (d *Device) Submit(b *blk.Bio) {
	switch {
	case b.Op == blk.Flush:
		b.Complete(blk.OK)
		return
	case b.Op != blk.Read:
		b.Complete(blk.ReadOnly)
		return
	case b.EndSector() < b.Sector || b.EndSector() > d.limits.Size:
		b.Complete(blk.Invalid)
		return
	}
	if !d.enter() {
		if b.Flags&blk.NoWait != 0 {
			b.Complete(blk.WouldBlock)
			return
		}
		d.wait.Until(d.enter)
	}
	j := d.jobs.Get().(*job)
	j.bio = b
	d.workers.Queue(&j.work)
}

func (d *Device) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.under == Depth {
		return false
	}
	d.under++
	return true
}

func (d *Device) run(j *job) {
	b := j.bio
	err := d.read(b)
	j.bio = nil
	d.jobs.Put(j)
	d.mu.Lock()
	d.under--
	d.mu.Unlock()
	d.wait.Wake()
	b.Complete(statusOf(err))
}

func statusOf(err error) blk.Status {
	if err == nil {
		return blk.OK
	}
	return blk.IOErr
}

func (d *Device) read(b *blk.Bio) error {
	off := b.Sector * blk.SectorSize
	for p := range b.Segments() {
		for len(p) > 0 {
			n, err := d.readRun(0, p, off)
			if err != nil {
				return err
			}
			p, off = p[n:], off+uint64(n)
		}
	}
	return nil
}

// readRun reads the first bytes of p at off, from a layer or those below it, as far
// as they are stored in one place.
func (d *Device) readRun(depth int, p []byte, off uint64) (int, error) {
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
func (d *Device) Extents(sector, sectors uint64) ([]blk.Extent, error) {
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
func (d *Device) extent(off, n uint64) (uint64, bool, error) {
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

// Close implements [blk.Device].
func (d *Device) Close() error {
	d.workers.Close()
	return closeChain(d.chain)
}

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
