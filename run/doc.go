// Package run runs unmodified programs, such as dmsetup, lvm and mkfs, on udm's devices,
// as an ordinary user: it intercepts their system calls about devices (package notify)
// and answers them. It needs Linux 5.19 or later and FUSE.
//
//	program ── open, stat, readlink, mknod … ──► session.paths ──► a file of the tree (devfs)
//	   │       ioctl of /dev/mapper/control ───► session.dm ─────► ctl.Service (dmioctl)
//	   │       ioctl of a device ──────────────► session.block ──► what is known of it (blkioctl)
//	   │       open of a device ───────────────► its file: of the daemon's FUSE mount, or the disk
//	   └────── read, write, mmap, io_submit … ──► go to that file; nothing is intercepted
//
// It is for programs that cooperate, and no security boundary: see package notify.
//
// The daemon is another process than the supervisor, also if it was started for the
// program alone: a process that is killed while it waits for an answer of its own FUSE
// server never ends.
//
// # What is known of devices
//
// devices has the last list of the daemon's devices. Each event of the daemon, and each
// intercepted command that may change a device, before its caller continues, makes it
// stale, and the next question reads the list again. From the same list /sys is made.
//
// # Claims
//
// An open with O_EXCL claims a device like in the kernel: another claim and a table that
// uses the device exclude it. The claim is a lock of the open file, so it ends with the
// last descriptor.
//
// # Processes
//
// The supervisor adopts what the program leaves behind, and ends it when the program
// has ended: without a supervisor each intercepted call would fail.
//
// Goroutines: two receive calls and answer those that cannot wait; each other call has
// one of its own. Lock order: session.claiming, then devices.mu, then leaves.
package run
