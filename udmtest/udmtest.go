// Package udmtest gives other programs' tests a disk to break: it fails, dawdles,
// drops writes and loses power on purpose, without root and without a kernel
// module.
//
//	d := udmtest.New(t, 64<<20)
//	store := mystore.Open(d)            // d is an io.ReaderAt and io.WriterAt with Sync
//	...                                 // or mystore.Open(d.Path()), a file, or by d.URI()
//	after := d.PowerCut(seed)           // what the platters hold; d is gone
//	mystore.Open(after)                 // must recover
//
// Better than cutting the power once is to cut it everywhere: [Crashes] runs a
// program once, writes down what it does to the disk, and then checks what a
// power cut could have left after each of its writes and flushes.
//
// # How a program gets at the disk
//
//	d itself   io.ReaderAt and io.WriterAt with Sync; everywhere
//	d.Device() udm's own interface; everywhere
//	d.URI()    NBD at a Unix socket, for programs that speak it; everywhere
//	d.Path()   a file; where FUSE may be mounted, else the test fails at once
//	d.Save()   a copy as a plain file, which does not fail and loses nothing; everywhere
//
// # What a power cut leaves
//
// A write that was followed by a completed Sync is there. Of the others each
// 512-byte sector holds, independently, any of its contents since the last Sync
// that covered it: writes are lost, reordered and torn. Equal seeds leave equal
// disks.
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

// Disk is a disk in memory with a volatile write cache. It is safe for
// concurrent use.
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

// New returns a disk of size bytes, a multiple of 512, all zeroes. It goes away
// with the test.
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

// Device is the disk as udm's own stacks take it.
func (d *Disk) Device() blk.Device { return d.dev }

// ReadAt reads at any offset; io.EOF at the end.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

// WriteAt writes at any offset. What was written is lost by a power cut unless a
// Sync follows.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) { return d.file.WriteAt(p, off) }

// Sync makes durable what was written before.
func (d *Disk) Sync() error { return d.file.Sync() }

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return d.file.Size() }

// Fault is a rule for what goes wrong: the first that matches a request decides.
type Fault = faultdev.Rule

// Break replaces the rules; none: nothing goes wrong.
//
//	d.Break(udmtest.Fault{Ops: []blk.Op{blk.Flush}, Status: blk.IOErr, Count: 1}) // the next fsync fails
//	d.Break(udmtest.Fault{Ops: []blk.Op{blk.Write}, Percent: 5, Delay: time.Second})
func (d *Disk) Break(rules ...Fault) { d.faults.SetRules(rules...) }

// PowerCut takes the power away: the disk fails from now on, and the result is
// what a new start finds.
func (d *Disk) PowerCut(seed uint64) *Disk {
	d.faults.Crash()
	return d.After(seed)
}

// After is what a power cut at this moment would leave, while d goes on.
func (d *Disk) After(seed uint64) *Disk { return newDisk(d.t, d.mem.CrashClone(seed), nil) }

// Load fills the disk from the beginning with the content of a file, durably:
// the state that a program starts from.
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

// Save writes the disk's content to a file: for programs that open one, where a
// mount of the disk itself is not needed.
func (d *Disk) Save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.NewSectionReader(d, 0, d.Size()))
	return errors.Join(err, f.Close())
}

// Path mounts the disk by FUSE and returns the path of a file of its size: for
// programs that want a file. It stays until the test ends; the test fails at once
// where FUSE cannot be mounted. A program that maps the file into memory must be
// another process: a page fault of the process that serves the file can wait for
// itself.
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
