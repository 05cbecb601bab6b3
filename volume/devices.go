package volume

import (
	"context"
	"errors"

	"udm/dm"
)

// ErrUnsure is in the error of a command that may have happened or not: it has
// failed, and could not be taken back.
var ErrUnsure = errors.New("what failed could not be taken back")

// Devices are mapped devices whose tables, records and names are saved. A
// command that returns an error has not happened, unless that is [ErrUnsure]; see
// also Create. Tables keep meaning the same devices when those are renamed. The daemon's service implements it. It is safe for concurrent use.
type Devices interface {
	// Control is where devices are looked at; changes go through the commands.
	Control() *dm.Control
	// Record returns what is kept with a device, the zero Record for nothing.
	Record(name string) Record
	// Create makes devices and loads and resumes their tables; one without a
	// table is only made. Each is saved with its table and record at once. EBUSY:
	// a name is taken. After an error, or a crash, those that were made first may
	// be there.
	Create(ctx context.Context, ds []Device) error
	// Swap gives devices that are there new tables and records at one moment, as
	// [dm.Exchange] does, whose order it has; one whose table is as it is to be
	// only stops meanwhile. The new state is saved before it is in force, of the
	// first device first: a crash leaves what is saved of the first few new.
	Swap(ctx context.Context, ds []Device) error
	// Remove removes a device that is not open. ENXIO: there is none. EBUSY: it
	// is open.
	Remove(ctx context.Context, name string) error
	// Rename gives a device another name. EBUSY: it is taken.
	Rename(ctx context.Context, name, to string) error
	// Message sends a message to the target at sector 0.
	Message(ctx context.Context, name, text string) (string, error)
}

// Device is a device as it is to be.
type Device struct {
	Name     string    `json:"name"`
	Table    []dm.Spec `json:"table,omitempty"`
	ReadOnly bool      `json:"readOnly,omitempty"`
	Record   Record    `json:"record,omitzero"`
}

// Record is what is kept with a device beside its tables.
type Record struct {
	// Operation is the id of the operation that made the device.
	Operation string   `json:"operation,omitempty"`
	Files     []string `json:"files,omitempty"` // absolute paths of what was made for it
	Base      *Base    `json:"base,omitempty"`  // of a clone
	// Of is the id of the volume that a volume is a snapshot of.
	Of *uint32 `json:"of,omitempty"`
}

// Base is an image as it was when something was first stood on it.
type Base struct {
	Path        string `json:"path"`
	Size        uint64 `json:"size"`        // bytes
	ModTime     int64  `json:"modTime"`     // nanoseconds since 1970
	Fingerprint string `json:"fingerprint"` // SHA-256 over samples of the content, in hex
}
