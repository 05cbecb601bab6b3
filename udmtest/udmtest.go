// Package udmtest gives the tests of other programs a disk that fails, is slow, drops
// writes and loses power on demand, without root and without a kernel module.
//
//	d := udmtest.New(t, 64<<20)
//	store := mystore.Open(d)            // d is an io.ReaderAt and io.WriterAt with Sync
//	...                                 // or mystore.Open(d.Path()), a file, or by d.URI()
//	after := d.PowerCut(seed)           // the content that is left; d fails from now on
//	mystore.Open(after)                 // must recover
//
// Instead of cutting the power once, [Crashes] cuts it everywhere: it runs a program
// once, records what the program does to the disk, and then checks what a power cut could
// have left after each write and flush.
//
// # How a program gets at the disk
//
//	d itself   io.ReaderAt and io.WriterAt with Sync; everywhere
//	d.Device() udm's own interface; everywhere
//	d.URI()    NBD at a Unix socket, for programs that speak it; everywhere
//	d.Path()   a file; only where FUSE can be mounted, else the test fails at once
//	d.Save()   a copy in a plain file, which does not fail and loses nothing; everywhere
//
// # What a power cut leaves
//
// Writes before a completed Sync survive. Every 512-byte sector that was written since
// holds any one of its contents since the last Sync, independently of other sectors:
// writes are lost, reordered and torn. Equal seeds leave equal disks.
package udmtest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/blk/faultdev"
	"udm/blk/memdev"
	"udm/env"
	"udm/export"
)

// Disk is a disk in memory with a volatile write cache. It lasts until the end of the
// test. All methods are safe for concurrent use, except Path and URI.
type Disk struct {
	t      testing.TB
	mem    *memdev.Device
	faults *faultdev.Device
	dev    *checkdev.Device // mem behind faults and checks
	file   *blk.File
	log    *recorder // nil: events are not recorded
	path   string
	uri    string
}

// New returns a disk of size bytes, a multiple of 512, that holds only zeroes.
func New(t testing.TB, size int64) *Disk {
	return newDisk(t, memdev.New(uint64(size)/blk.SectorSize, memdev.Volatile), nil)
}

func newDisk(t testing.TB, mem *memdev.Device, log *recorder) *Disk {
	e := env.Real()
	d := &Disk{t: t, mem: mem, log: log}
	var low blk.Device = mem
	if log != nil {
		low = &recorded{mem, log}
	}
	d.faults = faultdev.New(e, low, 1)
	d.dev = checkdev.New(d.faults, checkdev.Options{})
	d.file = blk.NewFile(e, d.dev)
	return d
}

// Device returns the disk as a device for udm's own stacks.
func (d *Disk) Device() blk.Device { return d.dev }

// ReadAt implements io.ReaderAt. The offset, in bytes, need not be aligned. It returns
// io.EOF at the end of the disk.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

// WriteAt implements io.WriterAt. The offset, in bytes, need not be aligned. A power cut
// may lose the data unless a Sync follows.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) { return d.file.WriteAt(p, off) }

// Sync makes all data durable whose writes had returned before.
func (d *Disk) Sync() error { return d.file.Sync() }

// Size returns the disk's size in bytes.
func (d *Disk) Size() int64 { return d.file.Size() }

// Fault is a rule for requests that fail or are slow. The first rule that matches a
// request applies.
type Fault = faultdev.Rule

// Break replaces the rules. Without rules, no request fails.
//
//	d.Break(udmtest.Fault{Ops: []blk.Op{blk.Flush}, Status: blk.IOErr, Count: 1}) // the next fsync fails
//	d.Break(udmtest.Fault{Ops: []blk.Op{blk.Write}, Percent: 5, Delay: time.Second})
func (d *Disk) Break(rules ...Fault) { d.faults.SetRules(rules...) }

// PowerCut turns the power off: d fails from now on. It returns the disk that is found
// after the power is back.
func (d *Disk) PowerCut(seed uint64) *Disk {
	d.faults.Crash()
	return d.After(seed)
}

// After returns the disk that a power cut at this moment would leave. d does not change.
func (d *Disk) After(seed uint64) *Disk { return newDisk(d.t, d.mem.CrashClone(seed), nil) }

// Load writes the content of a file to the beginning of the disk, durably, as the state
// that a program starts from.
func (d *Disk) Load(path string) error {
	p, err := os.ReadFile(path)
	if err == nil {
		_, err = d.WriteAt(p, 0)
	}
	if err == nil {
		err = d.Sync()
	}
	return err
}

// Save writes the disk's content to a file, for programs that need a file but not the
// faults of the disk.
func (d *Disk) Save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.NewSectionReader(d, 0, d.Size()))
	return errors.Join(err, f.Close())
}

// Path mounts the disk by FUSE and returns the path of a file of its size, for programs
// that need a file. The mount lasts until the test ends. The test fails at once if FUSE
// cannot be mounted. A program that maps the file into memory must be another process: a
// page fault in the process that serves the file could wait for itself.
func (d *Disk) Path() string {
	d.t.Helper()
	if d.path != "" {
		return d.path
	}
	dir := d.t.TempDir()
	unmount, err := mount(d.exports(), dir)
	if err != nil {
		d.t.Fatalf("udmtest: a file needs FUSE: %v; use the disk itself, or its URI with a program that speaks NBD", err)
	}
	d.t.Cleanup(func() {
		if err := unmount(); err != nil {
			d.t.Error(err)
		}
	})
	d.path = filepath.Join(dir, "disk")
	return d.path
}

var mount = mountAt // tests replace it

func (d *Disk) exports() export.Fixed {
	return export.Fixed{{Info: export.Info{Name: "disk"}, Device: d.dev, Extents: d.mem.Extents}}
}
