package dm

import (
	"udm/env"
)

// Type is a type of targets, which the third word of a table line names (the kernel's
// struct target_type, include/linux/device-mapper.h).
type Type struct {
	Name     string
	Version  [3]uint32
	Features Features

	// New constructs a target from the words after the type's name. It sets the
	// fields of t that say how bios are cut and copied, opens devices with
	// t.Open, and returns the Mapper. Errors are made with [Errorf]; their text is
	// the kernel's ti->error. The core closes the devices that New has opened,
	// also if New fails.
	New func(t *Target, args []string) (Mapper, error)

	// Parse parses the words after the type's name without opening or making
	// anything. It returns the errors of New for the same words, except those
	// that depend on the devices. nil: only New can parse them.
	Parse func(words []string) (Line, error)

	// ParseStatus parses the status of a target. nil: the status is empty, or
	// cannot be parsed.
	ParseStatus func(status string) (StatusLine, error)

	// Params are settings that a user may change while devices run. The types of
	// one module share them.
	Params []*Param

	// Doc is the manual: table syntax, status fields, messages, an example.
	Doc string
}

// Features are properties of a target type (DM_TARGET_* in device-mapper.h).
type Features uint

const (
	Singleton       Features = 1 << iota // alone in its table
	AlwaysWriteable                      // refuses a read-only table
	Immutable                            // a device with it keeps this type for ever
	Wildcard                             // may replace any type, even an immutable one
)

// Outcome says what Map has done with a clone.
type Outcome uint8

const (
	Submitted Outcome = iota // the target owns the clone and completes or issues it
	Remapped                 // the target has set Dev and Sector; the core submits the clone
	Requeue                  // push the bio back; outside a noflush suspend it fails with IOErr
	Kill                     // fail the clone with IOErr
)

// EndOutcome says what EndIO has decided.
type EndOutcome uint8

const (
	EndDone       EndOutcome = iota // finish with the status that EndIO returns
	EndIncomplete                   // the target keeps the clone, and completes it again after Rearm
	EndRequeue                      // like Requeue
)

// Mapper is a constructed target. Besides these two methods it may have those of any
// hook (hooks.go); the core looks them up once, when the table is loaded.
type Mapper interface {
	// Map handles one clone, whose Sector is an address in the mapped device. It
	// must not block, and any number of goroutines call it at the same time. Once
	// it has issued or completed the clone or given it to somebody else, it must
	// not touch the clone any more.
	Map(c *Clone) Outcome
	// Close releases what New has made, except the devices from Target.Open. No
	// I/O is in flight.
	Close()
}

// Area is a range of a lower device, in sectors.
type Area struct {
	Dev        *Dev
	Start, Len uint64
}

// StatusKind selects one of a target's two texts.
type StatusKind uint8

const (
	Info      StatusKind = iota // dmsetup status
	TableText                   // dmsetup table: what would construct it again
)

// StatusFlags modify a status request.
type StatusFlags uint8

// StatusNoflush asks for the status without committing anything first.
const StatusNoflush StatusFlags = 1

// Target is one line of a table: a range of the mapped device and what maps it (the
// kernel's struct dm_target). The type's New sets the fields after the first two.
type Target struct {
	Type       *Type
	Begin, Len uint64 // sectors of the mapped device

	// MaxIOLen is in sectors. Reads and writes are cut at multiples of it, counted
	// from Begin; 0: only at the target's end. It need not be a power of two. The
	// resume hooks may change it.
	MaxIOLen uint64
	// NumFlush, NumDiscard and NumWriteZeroes are the numbers of clones that the
	// target wants of such a bio, which differ in Clone.Num. 0: flushes skip the
	// target, and the other ops are not supported.
	NumFlush, NumDiscard, NumWriteZeroes int
	// FlushSupported and DiscardsSupported: the target supports the op even if its
	// devices do not.
	FlushSupported, DiscardsSupported bool
	// PartialUnit is in sectors of the mapped device, a power of two. Map may call
	// Clone.Accept for reads and writes that cross a multiple of it; 0: for none.
	// The resume hooks may change it.
	PartialUnit uint64
	// AccountsIssue: statistics count a clone as in flight from Issue on instead of
	// from Map on. It is for targets that want one clone of every bio.
	AccountsIssue bool

	table *Table
	core  targetCore
}

// Env returns the environment of the device: work, time and random numbers.
func (t *Target) Env() env.Env { return t.table.dev.env }

// Device returns the mapped device that the table was loaded for.
func (t *Target) Device() *Device { return t.table.dev }

// Writable reports whether the table was loaded for writing.
func (t *Target) Writable() bool { return t.table.mode.Write }

// Open opens the device with a name for this table, for reading or also for writing. The
// name is that of a mapped device or one that the Opener knows. A table opens a device
// once, however often Open is called, and closes it. The errno of the error is the
// kernel's.
func (t *Target) Open(name string, write bool) (*Dev, error) { return t.table.open(name, write) }

// Shared returns the value that all targets of one Control share under a key; mk makes it
// at the first call. It takes the place of the globals of a kernel module. Keys are of
// unexported types, as with context.WithValue.
func (t *Target) Shared(key any, mk func() any) any { return t.table.dev.control.shared(key, mk) }

// Event raises a table event: it increments the device's event number and wakes waiters.
// It does not block and may be called from Map and EndIO.
func (t *Target) Event() { t.table.dev.event(TableEvent) }

// NoflushSuspending reports whether a suspend without flushing is under way.
func (t *Target) NoflushSuspending() bool { return t.table.dev.noflushing.Load() }

// Mapper returns the Mapper that New has made.
func (t *Target) Mapper() Mapper { return t.core.mapper }
