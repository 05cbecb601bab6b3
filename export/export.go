// Package export says what a server has to offer: named block devices that
// clients open and let go. The servers are its sub-packages (nbd, fuse,
// vhost).
package export

import (
	"io/fs"

	"udm/blk"
	"udm/blk/checkdev"
)

// Exports is a changing set of exports. Its methods are called from many
// goroutines, may block, and must not call the server.
type Exports interface {
	// List tells what there is, in the order in which clients see it.
	List() []Info
	// Find tells about the export of a name, exactly as List spells it.
	Find(name string) (Info, bool)
	// Open attaches a client to the export of a name, exactly as List spells
	// it. An error that is [fs.ErrNotExist] means that there is no such export;
	// any other refuses the client, who is shown its text: a device that is
	// being removed, for example.
	Open(name string) (*Export, error)
}

// Info describes an export. Both strings are UTF-8 of at most 4096 bytes.
type Info struct {
	Name        string
	Description string // for people; may be empty
	Size        uint64 // sectors, as of now
	ReadOnly    bool   // refuses writes even if the device would take them
}

// Export is one client's hold on a device.
type Export struct {
	Info
	// Device checks bios, and emulates what the device lacks: it is wrapped once,
	// by whoever opens it, and servers submit what they are asked for as it is. A
	// server whose clients share memory with it submits writes with
	// [blk.Unstable], and data is copied if the device needs that.
	Device *checkdev.Device
	// Extents is the device's allocation map; nil: all of it counts as data.
	Extents blk.ExtentsFunc
	// SparseReads says that Extents costs less than reading zeroes does: long
	// reads may ask it first. Where it waits for something they had better not.
	SparseReads bool
	// Release, if any, is called once when the client is gone and the last of
	// its bios has ended. Until then the device must not be closed.
	Release func()
}

// Check is the device of an export.
func Check(d blk.Device) *checkdev.Device { return checkdev.New(d, checkdev.Options{}) }

// Done calls Release, if there is one.
func (e *Export) Done() {
	if e.Release != nil {
		e.Release()
	}
}

// Fixed is a set of exports that does not change. The exports' Release is
// called for every client.
type Fixed []Export

// List implements [Exports].
func (f Fixed) List() []Info {
	infos := make([]Info, len(f))
	for i := range f {
		infos[i] = f[i].now()
	}
	return infos
}

// Find implements [Exports].
func (f Fixed) Find(name string) (Info, bool) {
	for i := range f {
		if f[i].Name == name {
			return f[i].now(), true
		}
	}
	return Info{}, false
}

func (e *Export) now() Info {
	i := e.Info
	i.Size = e.Device.Limits().Size
	return i
}

// Open implements [Exports].
func (f Fixed) Open(name string) (*Export, error) {
	for i := range f {
		if f[i].Name == name {
			e := f[i]
			return &e, nil
		}
	}
	return nil, fs.ErrNotExist
}
