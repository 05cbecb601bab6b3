// Package dm is the device-mapper core: mapped devices, their tables of
// targets, and the control operations on them. It knows blk devices and nothing
// of any particular target.
//
// A [Control] holds devices, as the kernel's dm-ioctl.c does for a machine. A
// [Device] has two table slots, live and inactive: [Device.Load] fills the
// inactive one, [Device.Resume] makes it live. A [Table] is made of [Target]s,
// each constructed by a [Type]. A bio submitted to a device is cut into pieces
// at target borders; each piece's [Clone] goes through its target's Map to a
// lower device (drivers/md/dm.c, dm-table.c, dm-ioctl.c, dm-io-rewind.c).
//
// # Concurrency
//
// Submit on a running device takes no lock and writes no memory that another
// processor's Submit writes: it loads the live table, takes a piece from a
// per-processor pool, and counts itself in flight in a counter that belongs to
// the piece. A suspend first takes the table away, then looks at the counters.
//
// Lock order, outermost first; no lock but the first two is held while waiting,
// and none while a target's hook, an End or a lower Submit runs, except as said:
//
//	Device.loading, Device.ctl   (env.Mutex; held around hooks and waits)
//	├─ Control.nesting           (around a look for cycles and the open it is about)
//	│  ├─ Control.mu
//	│  └─ lowers.lowerMu
//	└─ env.Wait's own lock       (around the conditions of Until)
//	   └─ Control.mu
//	      └─ Device.mu
//	         └─ Table.mu
//	            └─ env.Queue's own lock
//
// Wake is therefore never called with Control.mu, Device.mu or Table.mu held.
// Nobody releases a lock of his caller's: what is decided about a bio under
// Device.mu is returned as an action and performed without it (slow.go).
//
// In builds with invariants every lower device checks what targets send down
// (checkdev.Between), and tests can stop goroutines between steps that belong
// together (point.go).
package dm
