// Package notify intercepts system calls of an unmodified program by seccomp's user
// notification, without ptrace and without privileges.
//
//	caller ── a call of the Filter ──► suspended; Listener.Receive returns a Call
//	                                        │
//	         Continue ── the kernel runs it ┤
//	         Return, Fail ── its result ────┤
//	         Inject ── a new descriptor ────┘ exactly one of them ends each call
//
// [Exec] turns this process into the program and sends the listener to the supervisor,
// which gets it from [Accept]. Descendants of the program are under the same filter.
//
// # What it does not promise
//
// It is for cooperation, no security boundary: a string of the caller is read once and
// may change before the kernel reads it again in a call that continues; programs of
// another architecture (32 bits) and io_uring are not seen at all.
//
// A signal does not interrupt a call that has been received, unless it is fatal; so no
// call is made twice. Who answers a call that waits has to look for signals with
// [Call.Interrupted]. A caller may be killed at any time: then the call is over, which
// [Call.Valid] reports, and answering it has no effect.
//
// Filter and program need Linux 5.19 or later, and memory of the caller can be read
// only if the kernel lets this process trace it: descendants of this user that are
// dumpable.
package notify
