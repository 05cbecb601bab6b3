package handover

// KeepSocket is the name of the keeper's socket in the root of a daemon.
const KeepSocket = "keep.sock"

// A keeper is a process that has a bundle while no daemon runs: open files stay open, and
// what the kernel asks by them waits. It knows nothing of what is in the bundle. A daemon
// that ends in order gives it one, once all is flushed and closed; the next daemon takes
// it. Who dies in between:
//
//	step                            the daemon dies             the keeper dies
//	1 the daemon closes its         the bundle is lost with     the same
//	  devices                       the files: users get errors
//	2 the bundle is given, which    the keeper has it           the bundle is lost
//	  the keeper confirms
//	3 the next daemon takes it,     the keeper still has it     the daemon has it
//	  and confirms that
//	4 the next daemon serves        the bundle is lost          the daemon has it

// order is the first message to a keeper: what its client wants.
type order struct {
	Protocol int
	Take     bool // the client wants what is kept; else it gives what is to be kept
}
