// Package handover is how a daemon replaces itself by a new process, of another version
// of its program perhaps, without a client losing its connection or a request.
//
// # Protocol
//
// The old process starts the new one with a socket. What comes after each step if one of
// them dies, or the new one refuses:
//
//	step                                       the new one dies, refuses   the old one dies
//	1 the new one starts; both greet           the old one serves on       the new one ends
//	2 the old one takes no commands and no     the old one serves on       the new one ends
//	  new clients, and flushes; I/O goes on
//	3 its front ends stop reading requests,    the old one takes back what the new one ends
//	  what is in flight ends, devices close    it has, as in 4
//	4 the bundle is sent; the new one opens    the same                    the new one serves
//	  the devices and says that it is ready
//	5 the old one lets it go                   a daemon has died           the new one serves
//
// Where the new process ends as well, the daemon is dead as after a kill -9, and its
// service manager starts it again. The old one takes back by the same way as the new one
// takes over, with the same bundle, once it has killed the new one and seen it end: two
// processes never serve at once. The new one does not read from a client, and writes
// nothing that the old one could not read, before step 5. Old and new process have the
// same open files, so locks on disks and on the root are held throughout.
//
// The greeting has the version of this protocol and the format of the saved state: a
// newer format than the new program's is refused in words. JSON values in the bundle may
// gain fields; a change that an older or newer program would misunderstand counts up
// protocol.
package handover

// protocol is the version of the protocol and of the parts of bundles.
const protocol = 1

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

// answer is a message of the new process, and the last one of the old process.
type answer struct {
	Refused string // why; "" if it does not refuse
}
