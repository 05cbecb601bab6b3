// Package handover is how a daemon replaces itself by a new process, of another version
// of its program perhaps, without a client losing its connection or a request.
//
// # Protocol
//
// The old process starts the new one with a socket. Devices that depend on each other go
// over together, as a group; all that the front ends cannot divide goes with the first
// group. What comes after each step if one of the processes dies, or the new one refuses:
//
//	step                                       the new one dies, refuses   the old one dies
//	1 the new one starts; both greet           the old one serves on       the new one ends
//	2 the old one takes no commands and no     the old one serves on       the new one ends
//	  new clients, and flushes; the new one
//	  reads what is saved and makes devices
//	  without tables; I/O goes on
//	3 the first group: its clients' requests   the old one takes back what the new one ends
//	  are not read any more, what is in flight it has handed over, as in 5
//	  ends, its devices close
//	4 its bundle is sent; the new one opens    the same                    the new one serves
//	  the devices and says that it is ready                                all, as in 7
//	5 the old one lets it go; the new one is   refuses cannot be; dies:    the new one serves
//	  the daemon, whose new clients wait for   the old one is the daemon   all, as in 7
//	  devices that have not come yet           again, as in 6
//	6 each other group likewise: it closes,    refuses: it gives back all  the new one has this
//	  is sent, opened and let go; devices of   that it has, and the old    group if it has its
//	  all other groups serve in one of both    one goes on with that; dies: bundle; as in 7
//	  processes                                the clients that it had
//	                                           connect again, the others go
//	                                           on, in the old one
//	7 the old one says that this was all; the  a daemon has died           devices that have not
//	  new one goes on with operations                                      come are restored from
//	                                                                       what is saved, and their
//	                                                                       clients connect again
//
// Where the new process ends as well, the daemon is dead as after a kill -9, and its
// service manager starts it again. The old one takes back by the same way as the new one
// takes over, with the same bundles, once the new one has ended or given back: no device is
// ever open in two processes, but disks that nobody writes. The new one does not read from
// a client before its group is let go, and writes nothing that the old one could not read.
// Old and new process have the same open files, so locks on disks and on the root are held
// throughout.
// In 7 the new one waits until the dead one's files are closed, which the end of its socket
// does not tell.
//
// The greeting has the version of this protocol and the format of the saved state: a
// newer format than the new program's is refused in words. JSON values in bundles may
// gain fields; a change that an older or newer program would misunderstand counts up
// protocol.
package handover

import "errors"

// ErrGone is the error of a process that has lost the old one.
var ErrGone = errors.New("the old process has ended, or does not hand over after all")

// protocol is the version of the protocol and of the parts of bundles.
const protocol = 2

// variable is the environment variable with the number of the new process's socket.
const variable = "UDM_PREDECESSOR"

// Greeting is the first message of the old process.
type Greeting struct {
	Protocol int
	Program  string // version of its program
	State    int    // format of the saved state
}

// NewGreeting returns a greeting of this version.
func NewGreeting(program string, state int) Greeting { return Greeting{protocol, program, state} }

// Order is what the new process is to do. All but Finish and Return come with a bundle, and
// are answered.
type Order string

// The orders, in this order. Prepare may be repeated.
const (
	Prepare Order = "prepare" // read what is saved
	Take    Order = "take"    // take over the front ends, and the devices that go with them
	Next    Order = "next"    // take over further devices
	Finish  Order = "finish"  // that was all
	Return  Order = "return"  // or: give back everything
)

// answer is a message of the new process. Of the old one it lets go what was sent before.
type answer struct {
	Refused string // why; "" if it does not refuse
}

// Group is devices that are handed over together, by minor number. nil: all that are there.
type Group map[uint32]bool

// Has reports whether a device is in the group.
func (g Group) Has(minor uint32) bool { return g == nil || g[minor] }
