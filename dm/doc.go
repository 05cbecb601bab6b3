// Package dm is the device-mapper core: mapped devices, their tables of targets,
// and the control operations on them. It works on [blk.Device]s and knows no
// particular target. Sizes and positions are in sectors of 512 bytes unless a
// comment says otherwise.
//
// A [Control] holds devices, as the kernel's dm-ioctl.c does for a machine. A
// [Device] has two table slots, live and inactive: [Device.Load] fills the
// inactive one, [Device.Resume] makes it live. A [Table] consists of [Target]s,
// each constructed by a [Type]. A bio that is submitted to a device is cut into
// pieces where targets end; the [Clone] of each piece goes through the Map of its
// target to a lower device (drivers/md/dm.c, dm-table.c, dm-ioctl.c,
// dm-io-rewind.c).
//
// # Concurrency
//
// Submit on a running device takes no lock and writes no memory that another
// processor's Submit writes: it loads the live table, takes a piece from a
// per-processor pool, and counts the bio in flight in a counter that belongs to
// the piece. A suspend first takes the table away, then reads the counters.
//
// Lock order, outermost first. Only the first two locks are held while waiting,
// and no lock is held while a target's hook, an End or a lower Submit runs, except
// where the list says so:
//
//	Device.loading, Device.ctl   (env.Mutex; held around hooks and waits)
//	├─ Control.nesting           (around a look for cycles and the open it is about)
//	│  ├─ Control.mu
//	│  └─ lowers.lowerMu
//	│     └─ users.mu
//	└─ env.Wait's own lock       (around the conditions of Until)
//	   └─ Control.mu
//	      └─ Device.mu
//	         └─ Table.mu
//	            └─ env.Queue's own lock
//
// Wake is therefore never called with Control.mu, Device.mu or Table.mu held. No
// function releases a lock that its caller has taken: a decision about a bio that
// is made under Device.mu is returned as an action and performed without the lock
// (slow.go).
//
// In builds with invariants every lower device checks the bios that targets send
// to it (checkdev.Between), and tests can stop goroutines between two steps that
// belong together (point.go).
package dm
