// Package leaf opens what stands at the bottom of a stack: it is the
// dm.Opener of the daemon and of programs that embed udm.
//
//	/PATH              a file or a block device, by its absolute path
//	mem:SIZE[:NAME]    a disk in memory, which lasts until it is closed
//	null:SIZE[:NAME]   a disk that stores nothing and reads as zeroes
//	block=BYTES:…      any of these, with logical blocks of at least BYTES
//	MAJOR:MINOR        any of these while it is open; else a real block device,
//	                   unless its major is 1 or 7, which are given away here
//
// The kinds of names but the last are one list, schemes: a new kind of leaf is an
// entry there.
//
// SIZE is bytes, or K, M, G or T with powers of 1024, and a multiple of 512.
// Two disks of one size need different NAMEs. BYTES is a power of two from 512 to
// 4096.
//
// A disk with larger blocks is what the kernel's loop device is with such a
// sector size: its physical block, smallest I/O and discard granularity are at
// least as large, a shorter rest at its end is left out, and bios that are not
// aligned to it are refused. While it is open it cannot be opened with another
// block.
//
// # Identity
//
// The same disk is opened once, however many tables name it and by whatever
// path: files are told apart by file system and inode, block devices by their
// number. Each has a number for as long as any open of it lasts. Block devices
// keep their own; files get major 7, as the kernel's loop devices have, and
// memory disks major 1, its ram disks, each with the lowest free minor. A real
// loop or ram disk whose number is taken gets one of major 259.
//
// A user may choose the number of a disk: see [Opener.Register].
//
// # Errors
//
// The errno is what the kernel gives for a table that names such a device:
// ENODEV for a path that does not exist or is no disk, ENXIO for a number that
// nothing has, EACCES for writing to what may only be read, EBUSY for a file
// that another process has open for writing or that is open with other blocks.
//
// Every disk is wrapped in a checkdev, so that bios are validated and what the
// disk lacks is emulated in one place.
//
// Lock order: disk.opening (env.Mutex; held while a disk is opened or closed),
// then Opener.mu, which is a leaf.
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

// Majors of what is no real block device: the kernel's loop and ram disks.
const (
	LoopMajor = 7
	RAMMajor  = 1
)

// extMajor is the kernel's block extended major, for what has none of its own.
const extMajor = 259

// Opener opens leaf devices. All methods are safe for concurrent use.
type Opener struct {
	env env.Env

	mu       sync.Mutex
	disks    map[identity]*disk   // guarded by mu
	byNumber map[blk.Number]*disk // guarded by mu
	// registered are names of disks that have a number of the user's choice.
	registered map[blk.Number]string // guarded by mu
}

// New returns an Opener that has nothing open.
func New(e env.Env) *Opener {
	return &Opener{env: e, disks: make(map[identity]*disk), byNumber: make(map[blk.Number]*disk), registered: make(map[blk.Number]string)}
}

// disk is one disk that is open, or being opened or closed.
type disk struct {
	source source
	number blk.Number
	users  int // guarded by Opener.mu

	opening *env.Mutex // guards what follows
	read    side
	write   side
}

// side is the open device for one mode.
type side struct {
	raw  blk.Device // as opened
	dev  blk.Device // checked
	refs int
}

// Open implements dm.Opener.
func (o *Opener) Open(name string, write bool) (blk.Device, blk.Number, error) {
	d, err := o.acquire(name)
	if err != nil {
		return nil, blk.Number{}, err
	}
	dev, err := d.open(o.env, write)
	if err != nil {
		o.release(d)
		return nil, blk.Number{}, openError(name, err)
	}
	return &handle{Device: dev, opener: o, disk: d, write: write}, d.number, nil
}

// acquire finds the disk of a name, or makes it, and counts a user.
func (o *Opener) acquire(name string) (*disk, error) {
	if n, ok := blk.ParseNumber(name); ok {
		if d := o.numbered(n); d != nil {
			return d, nil
		}
		if own, ok := o.registeredName(n); ok {
			name = own
		} else if name = ""; n.Major != LoopMajor && n.Major != RAMMajor {
			name = blockPath(n)
		}
	}
	src, err := resolve(name)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.disks[src.id]
	switch {
	case d == nil:
		d = &disk{source: src, number: o.numberLocked(&src), opening: env.NewMutex(o.env)}
		o.disks[src.id], o.byNumber[d.number] = d, d
	case d.source.block != src.block:
		return nil, dm.Errorf(syscall.EBUSY, "%s: already open as %s, with logical blocks of another size", src.name, d.source.name)
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

// numberLocked is the number that was registered for a disk, else its own or, where
// it has none or that is taken, the lowest free one of a major.
func (o *Opener) numberLocked(src *source) blk.Number {
	if n, free := o.ownNumberLocked(src.name); free {
		return n
	}
	n := blk.Number{Major: src.major}
	if src.number != (blk.Number{}) {
		if !o.takenLocked(src.number) {
			return src.number
		}
		n.Major = extMajor
	}
	for o.takenLocked(n) {
		n.Minor++
	}
	return n
}

func (o *Opener) release(d *disk) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d.users--; d.users == 0 {
		delete(o.disks, d.source.id)
		delete(o.byNumber, d.number)
	}
}

// Name is the table name of the disk that has a number, open or registered, not that
// number, but one of a scheme. "" when no disk has it.
func (o *Opener) Name(n blk.Number) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.byNumber[n]; d != nil {
		return d.source.name
	}
	return o.registered[n]
}

func (d *disk) side(write bool) *side {
	if write {
		return &d.write
	}
	return &d.read
}

func (d *disk) open(e env.Env, write bool) (blk.Device, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	s := d.side(write || d.source.volatile)
	if s.refs == 0 {
		dev, err := d.source.open(e, write)
		if err != nil {
			return nil, err
		}
		s.raw, s.dev = dev, checkdev.New(withBlocks(dev, d.source.block), checkdev.Options{Preflush: true})
	} else if f, ok := s.raw.(*filedev.Device); ok {
		// The file may have grown since, and the newcomer wants to know.
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
	s := d.side(write || d.source.volatile)
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
	opener *Opener
	disk   *disk
	write  bool
}

// Close gives the open back; the disk is closed with the last one.
func (h *handle) Close() error {
	err := h.disk.close(h.write)
	h.opener.release(h.disk)
	return err
}

// openError gives an error of the operating system the errno that the kernel
// has for it in a table. The path in it goes: name is that already.
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
