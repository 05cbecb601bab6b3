package nbd

import (
	"errors"
	"io/fs"

	"udm/blk"
)

// Exports is what a server has to offer. Its methods are called from many
// goroutines, may block, and must not call the server.
type Exports interface {
	// List tells what there is, in the order in which clients see it.
	List() []Info
	// Open attaches a client to the export of a name, exactly as List spells
	// it. An error that is [fs.ErrNotExist] means that there is no such export;
	// any other refuses the client, who is shown its text: a device that is
	// being removed, for example.
	Open(name string) (*Export, error)
}

// Info names an export. Both strings are UTF-8 of at most 4096 bytes.
type Info struct {
	Name        string
	Description string // for people; may be empty
}

// Export is one client's hold on a device.
type Export struct {
	Info
	Device blk.Device
	// ReadOnly refuses writes even if the device would take them.
	ReadOnly bool
	// Extents is the device's allocation map; nil: all of it counts as data.
	Extents blk.ExtentsFunc
	// Release, if any, is called once when the client is gone and the last of
	// its bios has ended. Until then the device must not be closed.
	Release func()
}

func (e *Export) release() {
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
		infos[i] = f[i].Info
	}
	return infos
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

// open finds the export that a client asks for. The empty name is the default
// export: one that is called so or, if there is just one, that one.
func open(x Exports, name string) (*Export, error) {
	e, err := x.Open(name)
	if name != "" || !errors.Is(err, fs.ErrNotExist) {
		return e, err
	}
	if all := x.List(); len(all) == 1 {
		return x.Open(all[0].Name)
	}
	return nil, err
}
