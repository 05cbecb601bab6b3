package ctl

import (
	"fmt"

	"udm/blk"
)

// Number is a device number.
type Number struct {
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

func (n Number) String() string { return fmt.Sprintf("%d:%d", n.Major, n.Minor) }

// Ref names the device of a command, by the first of these fields that is set. (The
// kernel looks for the uuid first, then the name, then the number.)
type Ref struct {
	Name   string  `json:"name,omitempty"`
	UUID   string  `json:"uuid,omitempty"`
	Number *Number `json:"number,omitempty"`
}

// Device describes a device like dmsetup info does, and with [With] its tables,
// status and dependencies.
type Device struct {
	Number
	Name                string `json:"name"`
	UUID                string `json:"uuid,omitempty"`
	Suspended           bool   `json:"suspended"`
	InternallySuspended bool   `json:"internallySuspended,omitempty"`
	ReadOnly            bool   `json:"readOnly"`
	DeferredRemove      bool   `json:"deferredRemove,omitempty"`
	Live                bool   `json:"live"`     // there is a live table
	Inactive            bool   `json:"inactive"` // there is an inactive table
	Disk                bool   `json:"disk"`     // a table has been loaded; the kernel creates the disk then
	Targets             int    `json:"targets"`  // number of lines in the requested table
	Opens               int    `json:"opens"`
	// Holders counts the opens by kind: tables, files, nbd, attachments, vhost-user,
	// program.
	Holders map[string]int `json:"holders,omitempty"`
	Event   uint32         `json:"event"`
	Sectors uint64         `json:"sectors"` // size of the live table
	// Waiting says why a saved table could not be loaded after a restart, or "".
	Waiting string `json:"waiting,omitempty"`

	Table  []Line `json:"table,omitempty"`
	Status []Line `json:"status,omitempty"`
	Deps   []Dep  `json:"deps,omitempty"`
	Queue  *Queue `json:"queue,omitempty"`
}

// StateText is the device's state in one or two words, for people.
func (d Device) StateText() string {
	state := "active"
	switch {
	case d.Waiting != "":
		state = "waiting"
	case d.Suspended:
		state = "suspended"
	case !d.Live:
		state = "no table"
	}
	if d.ReadOnly {
		state += " ro"
	}
	if d.DeferredRemove {
		state += " removing"
	}
	return state
}

// Queue is what Linux shows in /sys/block/DEVICE/queue, in bytes.
type Queue struct {
	LogicalBlock       uint32 `json:"logicalBlock"`
	PhysicalBlock      uint32 `json:"physicalBlock"`
	MinIO              uint32 `json:"minIO"`
	OptIO              uint32 `json:"optIO"`
	DiscardGranularity uint32 `json:"discardGranularity"`
	MaxDiscard         uint64 `json:"maxDiscard"`
	MaxWriteZeroes     uint64 `json:"maxWriteZeroes"`
	Rotational         bool   `json:"rotational"`
}

// Line is one target of a table, or its status.
type Line struct {
	Start  uint64 `json:"start"`
	Length uint64 `json:"length"`
	Target string `json:"target"`
	Params string `json:"params"`
}

func (l Line) String() string {
	return fmt.Sprintf("%d %d %s %s", l.Start, l.Length, l.Target, l.Params)
}

// Dep is a device that a table uses. Name is its name in Linux: dm-0, loop0, sda. Map
// is the name of a mapped device, Source the name of any other device in tables.
type Dep struct {
	Number
	Name   string `json:"name"`
	Map    string `json:"map,omitempty"` // name of a mapped device
	Source string `json:"source,omitempty"`
	// Report is the condition of a disk whose data is elsewhere, such as an NBD
	// server, or that may run out of space.
	Report *blk.Report `json:"report,omitempty"`
}

// With selects the costly parts of a [Device].
type With string

// The parts.
const (
	WithTable  With = "table"
	WithStatus With = "status"
	WithDeps   With = "deps"
	WithQueue  With = "queue"
)

// The requests: each is the body of the command of the same name.
type (
	// Query is the body of list and device.
	Query struct {
		Ref
		With     []With `json:"with,omitempty"`
		Inactive bool   `json:"inactive,omitempty"` // the inactive table instead of the live one
		Noflush  bool   `json:"noflush,omitempty"`  // status without committing anything first
		Keys     bool   `json:"keys,omitempty"`     // tables with their keys; else keys are shown as zeroes
	}
	// Create creates a device. With a table it also loads and resumes it, and removes
	// the device again if that fails.
	Create struct {
		Name     string  `json:"name"`
		UUID     string  `json:"uuid,omitempty"`
		Minor    *uint32 `json:"minor,omitempty"`
		Table    string  `json:"table,omitempty"`
		ReadOnly bool    `json:"readOnly,omitempty"`
	}
	// Load loads a table into the inactive slot.
	Load struct {
		Ref
		Table    string `json:"table"`
		ReadOnly bool   `json:"readOnly,omitempty"`
	}
	// Suspend is the body of suspend and resume.
	Suspend struct {
		Ref
		Noflush bool `json:"noflush,omitempty"`
	}
	// Remove is the body of remove and, without a Ref, of remove_all.
	Remove struct {
		Ref
		Deferred bool `json:"deferred,omitempty"`
	}
	// Rename changes the name of a device, or sets its uuid if it has none.
	Rename struct {
		Ref
		NewName string `json:"newName,omitempty"`
		NewUUID string `json:"newUUID,omitempty"`
	}
	// Message is for the target at a sector, or for the core if it begins with @.
	Message struct {
		Ref
		Sector uint64 `json:"sector,omitempty"`
		Text   string `json:"text"`
	}
	// Wait blocks until the device's event number differs from Event.
	Wait struct {
		Ref
		Event uint32 `json:"event,omitempty"`
	}
)

// Reply is the answer to a message.
type Reply struct {
	Text string `json:"text"`
}

// Target is a target type.
type Target struct {
	Name    string    `json:"name"`
	Version [3]uint32 `json:"version"`
	Doc     string    `json:"doc,omitempty"`
}

// Param is a parameter of all targets of a module: what Linux shows as
// /sys/module/MODULE/parameters/NAME. Its name is MODULE.NAME.
type Param struct {
	Name  string `json:"name"`
	Value uint32 `json:"value"`
	Doc   string `json:"doc,omitempty"`
}

// SetParam changes the value of a parameter.
type SetParam struct {
	Name  string `json:"name"`
	Value uint32 `json:"value"`
}

// KeyName names a key in the daemon's key store, as tables of crypt do:
// ":BYTES:TYPE:DESCRIPTION". The type is logon or user.
type KeyName struct {
	Type        string `json:"type"`
	Description string `json:"description"`
}

// SetKey stores a key until the daemon ends.
type SetKey struct {
	KeyName
	Key []byte `json:"key"` // base64 in JSON
}

// Key is a key in the key store, which nobody can read from there.
type Key struct {
	KeyName
	Size int `json:"bytes"`
}

// Version is the answer to version.
type Version struct {
	Program string `json:"program"` // of udm
	Driver  string `json:"driver"`  // of the device-mapper interface
	PID     int    `json:"pid"`     // of the daemon
	// Restoring is the progress of restoring devices after a start; until it is
	// complete, commands that change something wait. Nil: complete.
	Restoring *Progress `json:"restoring,omitempty"`
}

// Progress counts done parts.
type Progress struct {
	Done  int `json:"done"`
	Total int `json:"total"`
}

func (p Progress) String() string { return fmt.Sprintf("%d of %d", p.Done, p.Total) }

// Driver is the version of the device-mapper interface that udm implements.
const Driver = "4.47.0"
