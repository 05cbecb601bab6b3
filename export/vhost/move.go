package vhost

import (
	"errors"
	"os"
)

// A server can hand its front end to another one, which may be in another process: Hand,
// then Take. The front end and the guest notice nothing but a pause.
//
//	connection ── interrupted between two messages ──► its socket goes along
//	rings ── take no more requests; those in flight end and are answered ──► positions,
//	         eventfds, the files of guest memory and of the record go along
//	         └─ fail, and the ring has a record ──► are repeated: the guest has had no answer

// ErrMoved is the error of a connection that Hand took.
var ErrMoved = errors.New("vhost: the connection was moved")

// Moved is a server on its way to another one.
type Moved struct {
	Listeners []*os.File `json:"-"`
	Files     []*os.File `json:"-"`
	FrontEnd  *FrontEnd  // nil: none was connected
}

// Close closes what was not taken.
func (m *Moved) Close() {
	for _, list := range [][]*os.File{m.Listeners, m.Files} {
		for _, f := range list {
			f.Close()
		}
	}
}

// FrontEnd is the state of a connection. Files have numbers, the position in [Moved].Files
// plus 1; 0: none.
type FrontEnd struct {
	Socket, Channel            int
	Features, Protocol, Status uint64
	Through, Chosen            bool // the cache mode
	Known                      bool
	Memory                     []MovedRegion
	Record                     *MovedRecord
	Log                        *MovedRegion // of written pages; nil: none
	Logged                     int          // the eventfd of the log
	Rings                      []MovedRing
}

// MovedRegion is a region of guest memory.
type MovedRegion struct {
	Guest, Size, User, Offset uint64
	File                      int
}

// MovedRecord is the record of requests in flight.
type MovedRecord struct {
	Rings, Entries int
	Memory         MovedRegion
	Own            bool // not provided by the front end
}

// MovedRing is a ring that has stopped, as the front end has set it up.
type MovedRing struct {
	Size              int
	Desc, Used, Avail uint64
	HasAddress        bool
	Position          uint32
	Enabled, Begun    bool
	Kick, Call, Err   int
}
