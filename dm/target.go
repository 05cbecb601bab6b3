package dm

import (
	"udm/env"
)

// Type is a kind of target: what a table line's third word names
// (the kernel's struct target_type, include/linux/device-mapper.h).
type Type struct {
	Name     string
	Version  [3]uint32
	Features Features

	// New constructs a target from the words after its name. It sets the fields
	// of t that say how bios are cut and copied, opens devices with t.Open, and
	// returns what maps. An error is best made with [Errorf]: its text is the
	// kernel's ti->error. Devices that New opened are closed by the core, also
	// when New fails.
	New func(t *Target, args []string) (Mapper, error)

	// Parse understands the words after the type's name without opening or
	// making anything. Its errors are New's for the same words, as far as they
	// do not depend on the devices. nil: nobody but New understands them.
	Parse func(words []string) (Line, error)

	// ParseStatus understands what the type's status says. nil: nothing.
	ParseStatus func(status string) (StatusLine, error)

	// Params are what a user may tune while devices run; types of one module
	// share them.
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
	Wildcard                             // may stand in for any type, immutable ones included
)

// Outcome is what Map did with a clone.
type Outcome uint8

const (
	Submitted Outcome = iota // the target owns the clone and completes or submits it later
	Remapped                 // the target set Dev and Sector; the core submits the clone
	Requeue                  // not now: push the bio back (EIO outside a noflush suspend)
	Kill                     // fail the clone with IOErr
)

// EndOutcome is what EndIO decided.
type EndOutcome uint8

const (
	EndDone       EndOutcome = iota // finish with the status that EndIO returns
	EndIncomplete                   // the target keeps the clone; after Rearm it completes it again
	EndRequeue                      // as Requeue
)

// Mapper is a constructed target. Beside these two methods it may have those of
// any hook (hooks.go); the core looks once, when the table is loaded.
type Mapper interface {
	// Map decides about one clone, whose Sector is an address in the mapped
	// device. It never blocks and runs on any number of goroutines at a time.
	// After returning Submitted or Remapped, or once it has passed the clone
	// on, it does not touch the clone any more.
	Map(c *Clone) Outcome
	// Close releases what New made, devices from Target.Open excepted. No I/O
	// is in flight.
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

// Target is one line of a table: a range of the mapped device and what maps it
// (the kernel's struct dm_target). New fills the second group of fields.
type Target struct {
	Type       *Type
	Begin, Len uint64 // sectors of the mapped device

	// MaxIOLen cuts reads and writes at multiples of so many sectors from
	// Begin; 0 cuts at the target's end only. It need not be a power of two.
	// Resume may change it.
	MaxIOLen uint64
	// NumFlush, NumDiscard and NumWriteZeroes say how many clones of such a bio
	// the target wants (Clone.Num tells them apart); 0: flushes skip the
	// target, the other ops are not supported.
	NumFlush, NumDiscard, NumWriteZeroes int
	// FlushSupported and DiscardsSupported: the target does it although its
	// devices may not.
	FlushSupported, DiscardsSupported bool
	// PartialUnit lets Map call Clone.Accept for reads and writes that cross a
	// multiple of so many sectors of the mapped device, a power of two; 0: for
	// none. Resume may change it.
	PartialUnit uint64
	// AccountsIssue: statistics count a clone as in flight from Issue on, not
	// from Map on. For targets that want one clone of every bio.
	AccountsIssue bool

	table *Table
	core  targetCore
}

// Env is the environment of the device: work, time and chance.
func (t *Target) Env() env.Env { return t.table.dev.env }

// Device is the mapped device that the table was loaded for.
func (t *Target) Device() *Device { return t.table.dev }

// Writable reports whether the table was loaded for writing.
func (t *Target) Writable() bool { return t.table.mode.Write }

// Open opens the device that a table names for this table, read-only or for
// writing: an absolute path, major:minor, or what else the opener knows. The
// same device is opened once per table. The errno of the error is the kernel's.
func (t *Target) Open(name string, write bool) (*Dev, error) { return t.table.open(name, write) }

// Shared returns the value that all targets of one Control share under key, and
// makes it with mk when there is none. Keys are unexported types, as with
// context.WithValue: it stands in for a kernel module's globals.
func (t *Target) Shared(key any, mk func() any) any { return t.table.dev.control.shared(key, mk) }

// Event raises a table event: the device's event number goes up and waiters
// wake. It does not block and may be called from Map and EndIO.
func (t *Target) Event() { t.table.dev.event(TableEvent) }

// NoflushSuspending reports whether a suspend without flushing is under way.
func (t *Target) NoflushSuspending() bool { return t.table.dev.noflushing.Load() }

// Mapper returns what New made.
func (t *Target) Mapper() Mapper { return t.core.mapper }
