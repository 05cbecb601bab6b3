package volume

import (
	"context"
	"errors"

	"udm/dm"
	"udm/volume/rbddiff"
)

// ErrUnsure is wrapped in the error of a command that may or may not have taken
// effect: it failed and could not be undone.
var ErrUnsure = errors.New("the failed change could not be undone")

// Devices are mapped devices whose tables, records and names are saved. A command
// that returns an error has changed nothing, unless the error wraps [ErrUnsure]; see
// also Create. Tables keep referring to the same devices when those are renamed. The
// daemon's service implements Devices. It must be safe for concurrent use.
type Devices interface {
	// Control gives read access to the devices; changes go through the commands
	// below.
	Control() *dm.Control
	// Record returns what is saved with a device, or the zero Record.
	Record(name string) Record
	// Create makes devices and loads and resumes their tables, in order; a device
	// without a table is only made. Each is saved together with its table and record.
	// EBUSY: a name is taken. After an error, as after a crash, any of them may exist,
	// recognizable by their records; Remove removes those.
	Create(ctx context.Context, ds []Device) error
	// Swap gives existing devices new tables and records at one moment, like
	// [dm.Exchange], in whose order they must be. A device whose table does not
	// change is only suspended meanwhile, unless it is to be reloaded. The new state is
	// saved before it takes effect, starting with the first device; after a crash the
	// first few devices are new, or any of them if they are independent of each other.
	Swap(ctx context.Context, ds []Device, independent bool) error
	// Remove removes devices, all or none. Names that do not exist are ignored. EBUSY:
	// a device is open, also if only another of them has it open. After a crash any of
	// them may exist.
	Remove(ctx context.Context, names []string) error
	// Note changes the record of a device and nothing else. After a crash it is either.
	Note(name string, r Record) error
	// Rename changes the name of a device. EBUSY: the new name is taken.
	Rename(ctx context.Context, name, to string) error
	// Message sends a message to the target at sector 0.
	Message(ctx context.Context, name, text string) (string, error)
}

// Device is the desired state of a device.
type Device struct {
	Name     string    `json:"name"`
	Table    []dm.Spec `json:"table,omitempty"`
	ReadOnly bool      `json:"readOnly,omitempty"`
	// Reload loads the table also where it is live: a disk that it names has grown.
	Reload bool   `json:"reload,omitempty"`
	Record Record `json:"record,omitzero"`
}

// Record is what is saved with a device besides its tables.
type Record struct {
	// Operation is the id of the operation that made the device.
	Operation string   `json:"operation,omitempty"`
	Files     []string `json:"files,omitempty"` // absolute paths of the files made for it
	Base      *Base    `json:"base,omitempty"`  // of a clone
	// Source is what a lazy clone is copied from, until it is hydrated.
	Source string `json:"source,omitempty"`
	// Labels are what users of the manager keep with an object: see [Manager.Label].
	Labels map[string]string `json:"labels,omitempty"`
	// Content is the id of the content of a device that was received and that nobody
	// has written to since.
	Content string `json:"content,omitempty"`
	// Incoming is set while a stream is received into the device.
	Incoming *Incoming `json:"incoming,omitempty"`
	// Of is the id of the volume that this volume is a snapshot of.
	Of *uint32 `json:"of,omitempty"`
}

// Incoming is the state of a stream that is received into a device.
type Incoming struct {
	// Keep keeps the device when the stream is cut off, so that it can be continued.
	Keep bool   `json:"keep,omitempty"`
	Base string `json:"base,omitempty"` // id of the content that the stream starts from
	// At is where to continue; nil: at the beginning.
	At *rbddiff.Position `json:"at,omitempty"`
}

// Base is the state of an image when it was first used as a base.
type Base struct {
	Path        string `json:"path"`
	Size        uint64 `json:"size"`        // bytes
	ModTime     int64  `json:"modTime"`     // nanoseconds since 1970
	Fingerprint string `json:"fingerprint"` // SHA-256 over samples of the content, in hex
}
