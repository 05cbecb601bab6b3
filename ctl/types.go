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

// Ref says which device a command is about: the first of these that is set.
// The kernel looks for the uuid first, then the name, then the number.
type Ref struct {
	Name   string  `json:"name,omitempty"`
	UUID   string  `json:"uuid,omitempty"`
	Number *Number `json:"number,omitempty"`
}

// Device is what there is to know about a device: dmsetup info, and with
// [With] its tables, status and dependencies.
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
	Disk                bool   `json:"disk"`     // a table was loaded once; the kernel makes the disk then
	Targets             int    `json:"targets"`  // lines of the table asked about
	Opens               int    `json:"opens"`
	// Holders says how many of the opens are of a kind: tables, files, nbd,
	// attachments, vhost-user, program.
	Holders map[string]int `json:"holders,omitempty"`
	Event   uint32         `json:"event"`
	Sectors uint64         `json:"sectors"` // size of the live table
	// Waiting says why a saved table could not be loaded yet after a restart.
	Waiting string `json:"waiting,omitempty"`

	Table  []Line `json:"table,omitempty"`
	Status []Line `json:"status,omitempty"`
	Deps   []Dep  `json:"deps,omitempty"`
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

// Dep is a device that a table uses. Name is what Linux would call it: dm-0,
// loop0, sda. A mapped device has a Map, another one a Source: what tables call it.
type Dep struct {
	Number
	Name   string `json:"name"`
	Map    string `json:"map,omitempty"` // name of a mapped device
	Source string `json:"source,omitempty"`
	// Report tells how a disk is whose data are elsewhere.
	Report *blk.Report `json:"report,omitempty"`
}

// With selects the parts of a [Device] that cost something.
type With string

// The parts.
const (
	WithTable  With = "table"
	WithStatus With = "status"
	WithDeps   With = "deps"
)

// The requests. Each is the body of the command of the same name.
type (
	// Query is the body of list and device.
	Query struct {
		Ref
		With     []With `json:"with,omitempty"`
		Inactive bool   `json:"inactive,omitempty"` // the inactive table instead of the live one
		Noflush  bool   `json:"noflush,omitempty"`  // status without committing anything first
		Keys     bool   `json:"keys,omitempty"`     // tables with their keys; else there are zeroes in place of them
	}
	// Create makes a device; with a table it also loads and resumes it, and
	// removes the device again when that fails.
	Create struct {
		Name     string  `json:"name"`
		UUID     string  `json:"uuid,omitempty"`
		Minor    *uint32 `json:"minor,omitempty"`
		Table    string  `json:"table,omitempty"`
		ReadOnly bool    `json:"readOnly,omitempty"`
	}
	// Load fills the inactive slot.
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
	// Rename gives a device a new name, or a uuid if it has none.
	Rename struct {
		Ref
		NewName string `json:"newName,omitempty"`
		NewUUID string `json:"newUUID,omitempty"`
	}
	// Message is for the target at a sector, or the core if it begins with @.
	Message struct {
		Ref
		Sector uint64 `json:"sector,omitempty"`
		Text   string `json:"text"`
	}
	// Wait blocks until the device's event number is not Event.
	Wait struct {
		Ref
		Event uint32 `json:"event,omitempty"`
	}
)

// Reply answers a message.
type Reply struct {
	Text string `json:"text"`
}

// Target is a target type.
type Target struct {
	Name    string    `json:"name"`
	Version [3]uint32 `json:"version"`
	Doc     string    `json:"doc,omitempty"`
}

// Param is a number that all targets of a module go by: what Linux shows as
// /sys/module/MODULE/parameters/NAME. Its name is MODULE.NAME.
type Param struct {
	Name  string `json:"name"`
	Value uint32 `json:"value"`
	Doc   string `json:"doc,omitempty"`
}

// SetParam gives a parameter a new value.
type SetParam struct {
	Name  string `json:"name"`
	Value uint32 `json:"value"`
}

// Version answers version.
type Version struct {
	Program string `json:"program"` // of udm
	Driver  string `json:"driver"`  // of the device-mapper interface
	PID     int    `json:"pid"`     // of the daemon
	// Restoring is how far the daemon is with its devices after it was started;
	// until then commands that change something wait. Nil: it is done.
	Restoring *Progress `json:"restoring,omitempty"`
}

// Progress is how much of something is done.
type Progress struct {
	Done  int `json:"done"`
	Total int `json:"total"`
}

func (p Progress) String() string { return fmt.Sprintf("%d of %d", p.Done, p.Total) }

// Driver is the version of the device-mapper interface that this one follows.
const Driver = "4.47.0"
