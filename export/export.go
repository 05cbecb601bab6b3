// Package export defines what servers offer: named block devices that clients
// open and release. The servers are its sub-packages (nbd, fuse, vhost).
package export

import (
	"io/fs"

	"udm/blk"
	"udm/blk/checkdev"
)

// Exports is a changing set of exports. Its methods are called from many
// goroutines, may block, and must not call the server.
type Exports interface {
	// List returns the exports in the order in which clients see them.
	List() []Info
	// Find describes the export of a name, spelled exactly as in List.
	Find(name string) (Info, bool)
	// Open attaches a client to the export of a name, spelled exactly as in List.
	// [fs.ErrNotExist] means that no such export exists. Any other error refuses
	// the client, which is shown its text, for example because the device is
	// being removed.
	Open(name string) (*Export, error)
}

// Info describes an export. Both strings are UTF-8 of at most 4096 bytes.
type Info struct {
	Name        string
	Description string // for people; may be empty
	Size        uint64 // current size in sectors
	ReadOnly    bool   // refuses writes even if the device would take them
}

// Export is one client's hold on a device.
type Export struct {
	Info
	// Device checks bios and emulates what the device lacks, so servers submit
	// requests unchanged. Whoever opens the device wraps it, once. A server whose
	// clients share memory with it submits writes with [blk.Unstable]; their data
	// is copied if the device needs that.
	Device *checkdev.Device
	// Extents is the device's allocation map. nil: everything is data.
	Extents blk.ExtentsFunc
	// Uncommitted reports whether completed writes would be lost with this process,
	// although a flush would keep them. nil: as the ProcessCache limit says.
	Uncommitted func() bool
	// Contexts lists what else clients may ask about the device's sectors. It may wait
	// for metadata. nil: nothing.
	Contexts func() []Context
	// SparseReads states that Extents costs less than reading zeroes, so long
	// reads may query it first. It must be false if Extents may wait.
	SparseReads bool
	// Same, if not nil, is comparable and equal for all exports of one device, so that
	// servers keep unaligned writes of their clients apart from other writes to it, also
	// those that come through other servers. nil: the server and the name identify the
	// device.
	Same any
	// Again, if not nil, is the name by which Exports opens the same device again: it may
	// have been renamed. nil: Name.
	Again func() string
	// Release, if not nil, is called once, after the client is gone and its last
	// bio has ended. The device must stay open until then.
	Release func()
}

// Context is a map of a device beside its allocation map, by its name in NBD, where it
// is a metadata context.
type Context struct {
	Name string
	// Status tells about the sectors of a range as an [blk.ExtentsFunc] does: runs
	// without gaps from its beginning on, at least one, and no longer than it.
	Status func(sector, sectors uint64) ([]Run, error)
}

// Run is a run of sectors with the same status. What it means is up to the context.
type Run struct {
	Sectors uint64
	Status  uint32
}

// Check wraps a device for an export.
func Check(d blk.Device) *checkdev.Device { return checkdev.New(d, checkdev.Options{}) }

// NeedsFlush reports whether completed writes need a flush to outlive this process, and a
// flush helps. A server whose clients do not learn of its end asks this before it answers
// writes.
func (e *Export) NeedsFlush() bool {
	l := e.Device.Limits()
	if !l.ProcessCache || l.ProcessMemory {
		return false
	}
	return e.Uncommitted == nil || e.Uncommitted()
}

// Done calls Release if it is set.
func (e *Export) Done() {
	if e.Release != nil {
		e.Release()
	}
}

// Fixed is a set of exports that does not change. Release is called for every
// client.
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
