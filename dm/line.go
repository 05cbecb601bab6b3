package dm

// Line is the words behind a target's name in a table, understood by the
// target's type without opening anything. Every target package has one, with a
// field for each thing that the line says; devices are kept by the names that
// the line gives them.
type Line interface {
	// String prints the words as a table has them. Parsing them again gives an
	// equal Line.
	String() string
	// Devices are the words that name devices, in the order of the line.
	Devices() []DeviceWord
}

// DeviceWord is a word of a Line that names a device.
type DeviceWord struct {
	// Name points into the Line: a caller may put another name there, one that
	// still means the same device after a rename or a restart.
	Name *string
	Role Role
}

// Role says what a line does with a device, and so which of two tables that
// name the same device has to be loaded first when a stack is built again.
// Every device has to be there before a table that names it.
type Role uint8

const (
	// Plain: the order does not matter.
	Plain Role = iota
	// Snapshotted: the line shows the device as it was, and has to be told of
	// each write to it (the origin of a snapshot).
	Snapshotted
	// Origin: the line is the way to write to the device, and is loaded after
	// all lines that have it as Snapshotted (a snapshot-origin or
	// snapshot-merge).
	Origin
)

// StatusLine is what a target says of itself in dmsetup status, understood.
// Every target package that says anything has one.
type StatusLine interface {
	// String prints the words as the target's status has them.
	String() string
	// Usage tells how full the target's limited space is; empty if it has none.
	Usage() []Usage
}

// Usage is a limited space and how much of it is taken, in bytes.
type Usage struct {
	What        string // such as "data", "metadata", "store"
	Used, Total uint64 // Total 0: unknown
}
