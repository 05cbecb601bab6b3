// Package leaf opens the devices at the bottom of a stack. It is the dm.Opener of the
// daemon and of programs that embed udm. It knows these names:
//
//	/PATH              a file or a block device, by its absolute path
//	direct:/PATH       a file or block device past the page cache, by io_uring where there is one
//	mem:SIZE[:NAME]    a disk in memory, which lasts until it is closed
//	null:SIZE[:NAME]   a disk that stores nothing and reads as zeroes
//	nbd:URI            a disk at an NBD server; its URI alone will do: nbd://HOST/EXPORT
//	rbd:POOL/IMAGE     an image of a Ceph cluster; with @SNAP a snapshot of it, read-only
//	qcow2:/PATH        the disk in a qcow2 image and its backing files, read-only
//	https://…          an object at a web server, read by ranges, read-only
//	archive:SNAP:STORE a snapshot in an archive (udm archive), read-only
//	part:N:…           partition N of any of these, by its GPT or MBR
//	block=BYTES:…      any of these, with logical blocks of at least BYTES
//	MAJOR:MINOR        any of these while it is open; else a real block device,
//	                   unless its major is 1, 7 or 43, whose numbers this package assigns
//
// All kinds of names except the last are entries of one list, schemes; a new kind of
// leaf is another entry.
//
// SNAP is the name or the id of a snapshot; for an encrypted archive ",key=/FILE" follows,
// the key file. STORE is the absolute path of a folder, or s3://HOST/BUCKET/PREFIX.
//
// SIZE is in bytes, or with K, M, G, T, P or E in powers of 1024; it is a multiple of 512. Two
// disks of the same size need different NAMEs. BYTES is a power of two from 512 to 4096.
//
// A disk with larger blocks is like the kernel's loop device with such a sector size:
// its physical block, smallest I/O and discard granularity are at least as large, an
// incomplete block at its end is left out, and bios that are not aligned to blocks are
// refused. While a disk is open, it cannot be opened with another size of blocks, nor
// both through the page cache and past it.
//
// # Identity
//
// A disk is opened once, however many tables name it and by whatever paths: a file is
// identified by its file system and inode, a block device by its number, a disk at an
// NBD server by address and export, an image of a Ceph cluster by the ids of the cluster,
// the pool and the image. A disk has a number as long as it is open. Block devices keep
// their own; files and partitions get major 7, that of the kernel's loop devices, memory
// disks major 1, that of its ram disks, and disks at NBD servers and other remote ones
// major 43, that of its nbd devices, each with the lowest free minor. A real device whose
// number is taken, or is one of a mapped device here (virtio disks have major 254 on many
// hosts), gets one of major 259. A disk at an NBD server is opened once for
// readers and writers, with the parameters of the first. A partition opens its disk,
// which may be open by its own name as well.
//
// A user may choose the number of a disk; see [Opener.Register].
//
// # Errors
//
// The errno is the one that the kernel returns for a table that names such a device:
// ENODEV for a path that does not exist or is not a disk, ENXIO for a number that no
// device has, EACCES for opening a device for writing that may only be read, EBUSY for a
// file that another process has open for writing or that is open here with another size
// of blocks, or by the other of /PATH and direct:/PATH.
//
// Every disk is wrapped in a checkdev, which validates bios and emulates what the disk
// lacks.
//
// Lock order: disk.opening (env.Mutex; held while a disk is opened or closed), that
// of a partition before that of its disk, then Opener.mu, which is a leaf.
package leaf

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/blk/filedev"
	"udm/dm"
	"udm/env"
)

// The majors that disks get that are no kernel block devices: those of the kernel's
// loop, ram and nbd devices.
const (
	LoopMajor = 7
	RAMMajor  = 1
	NBDMajor  = 43
)

// extMajor is the kernel's block extended major (BLOCK_EXT_MAJOR).
const extMajor = 259

// Opener opens leaf devices. All methods are safe for concurrent use.
type Opener struct {
	env env.Env

	mu       sync.Mutex
	disks    map[identity]*disk   // guarded by mu
	byNumber map[blk.Number]*disk // guarded by mu
	lowest   map[uint32]uint32    // guarded by mu; by major: no minor number below is free
	// registered has the names of disks whose number a user has chosen.
	registered map[blk.Number]string // guarded by mu
	handed     map[identity]Handed   // guarded by mu: see Take
}

// New returns an Opener that has nothing open.
func New(e env.Env) *Opener {
	return &Opener{env: e, disks: make(map[identity]*disk), byNumber: make(map[blk.Number]*disk), lowest: make(map[uint32]uint32), registered: make(map[blk.Number]string),
		handed: make(map[identity]Handed)}
}

// disk is one disk that is open, or being opened or closed.
type disk struct {
	source source
	base   string // see Base
	number blk.Number
	users  int // guarded by Opener.mu

	opening *env.Mutex // guards what follows
	read    side
	write   side
}

// side is the device that is open for one mode.
type side struct {
	raw  blk.Device // as opened
	dev  blk.Device // checked
	refs int
}

// Open implements dm.Opener. The caller closes the device that it returns.
func (o *Opener) Open(name string, write bool) (blk.Device, blk.Number, error) {
	d, err := o.acquire(name)
	if err != nil {
		return nil, blk.Number{}, err
	}
	dev, err := d.open(o, write)
	if err != nil {
		o.release(d)
		return nil, blk.Number{}, openError(name, err)
	}
	return &handle{Device: dev, raw: d.side(write || d.source.shared).raw, opener: o, disk: d, write: write}, d.number, nil
}

// acquire finds or makes the disk with a name, and counts a user of it.
func (o *Opener) acquire(name string) (*disk, error) {
	if n, ok := blk.ParseNumber(name); ok {
		if d := o.numbered(n); d != nil {
			return d, nil
		}
		if own, ok := o.registeredName(n); ok {
			name = own
		} else if name = ""; n.Major != LoopMajor && n.Major != RAMMajor && n.Major != NBDMajor {
			name = blockPath(n)
		}
	}
	src, err := resolve(name)
	if err != nil {
		return nil, err
	}
	base := src.base()
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.disks[src.id]
	switch {
	case d == nil:
		d = &disk{source: src, base: base, number: o.numberLocked(&src), opening: env.NewMutex(o.env)}
		o.disks[src.id], o.byNumber[d.number] = d, d
	case d.source.block != src.block:
		return nil, dm.Errorf(syscall.EBUSY, "%s: already open as %s, with logical blocks of another size", src.name, d.source.name)
	case d.source.direct != src.direct:
		return nil, dm.Errorf(syscall.EBUSY, "%s: already open as %s; use that name", src.name, d.source.name)
	}
	d.users++
	return d, nil
}

func (o *Opener) numbered(n blk.Number) *disk {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.byNumber[n]
	if d != nil {
		d.users++
	}
	return d
}

// numberLocked chooses the number of a disk: the registered one, else its own one, or the
// lowest free one of a major if it has none or its own one is taken.
func (o *Opener) numberLocked(src *source) blk.Number {
	if n, free := o.ownNumberLocked(src.name); free {
		return n
	}
	if h, ok := o.handed[src.id]; ok && !o.takenLocked(h.Number) {
		return h.Number
	}
	n := blk.Number{Major: src.major}
	if src.number != (blk.Number{}) {
		if !o.takenLocked(src.number) {
			return src.number
		}
		n.Major = extMajor
	}
	for n.Minor = o.lowest[n.Major]; o.takenLocked(n); {
		n.Minor++
	}
	o.lowest[n.Major] = n.Minor
	return n
}

// freedLocked is called when a number is given up.
func (o *Opener) freedLocked(n blk.Number) {
	if low, ok := o.lowest[n.Major]; ok && n.Minor < low {
		o.lowest[n.Major] = n.Minor
	}
}

func (o *Opener) release(d *disk) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d.users--; d.users == 0 {
		delete(o.disks, d.source.id)
		delete(o.byNumber, d.number)
		o.freedLocked(d.number)
	}
}

// Name returns the name by which a table can open the disk that has a number, whether it
// is open or registered. The name is never the number itself. It is "" if no disk has the
// number.
func (o *Opener) Name(n blk.Number) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.byNumber[n]; d != nil {
		return d.source.name
	}
	return o.registered[n]
}

// Report tells how the open disk with a number is, if it has something to tell. It does not
// block.
func (o *Opener) Report(n blk.Number) (r blk.Report, ok bool) {
	d := o.numbered(n)
	if d == nil {
		return r, false
	}
	defer o.release(d)
	if !d.opening.TryLock() {
		return blk.Report{State: "opening"}, true
	}
	defer d.opening.Unlock()
	for _, s := range []*side{&d.write, &d.read} {
		if s.raw == nil {
			continue
		}
		if r, ok = blk.ReportOf(s.raw); ok && r.State != "" {
			return r, true
		}
	}
	return r, false
}

func (d *disk) side(write bool) *side {
	if write {
		return &d.write
	}
	return &d.read
}

func (d *disk) open(o *Opener, write bool) (blk.Device, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	s := d.side(write || d.source.shared)
	if s.refs == 0 {
		dev, err := d.source.open(o, write)
		if err != nil {
			return nil, err
		}
		if write && dev.Limits().ReadOnly {
			dev.Close()
			return nil, syscall.EROFS
		}
		s.raw, s.dev = dev, checkdev.New(withBlocks(dev, d.source.block), checkdev.Options{Preflush: true})
	} else if write && s.raw.Limits().ReadOnly {
		return nil, syscall.EROFS
	} else if f, ok := s.raw.(*filedev.Device); ok {
		// The file may have grown since it was opened.
		if _, err := f.Refresh(); err != nil {
			return nil, err
		}
	}
	s.refs++
	return s.dev, nil
}

func (d *disk) close(write bool) error {
	d.opening.Lock()
	defer d.opening.Unlock()
	s := d.side(write || d.source.shared)
	if s.refs--; s.refs > 0 {
		return nil
	}
	dev := s.dev
	s.raw, s.dev = nil, nil
	return dev.Close()
}

// handle is one open of a disk.
type handle struct {
	blk.Device
	raw    blk.Device // what Device checks
	opener *Opener
	disk   *disk
	write  bool
}

// Close undoes one Open. The last one closes the disk.
func (h *handle) Close() error {
	err := h.disk.close(h.write)
	h.opener.release(h.disk)
	return err
}

// openError converts an error of the operating system to the errno that the kernel
// returns for it when it loads a table. The text names the disk once.
func openError(name string, err error) error {
	var n syscall.Errno
	switch {
	case errors.Is(err, filedev.ErrInUse):
		n = syscall.EBUSY
	case errors.Is(err, fs.ErrNotExist):
		n = syscall.ENODEV
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		n = syscall.EACCES
	case !errors.As(err, &n):
		n = syscall.EINVAL
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return dm.Errorf(n, "%s: %v", name, err)
}
