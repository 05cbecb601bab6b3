// Package vhost has other programs use the daemon's devices by vhost-user-blk: QEMU with a
// guest, and libblkio.
//
// # QEMU
//
// The firmware boots from a device, and the kernel's own driver reads and writes several
// through resets of the machine, pauses, kills and replacements of the daemon, and live
// migrations. QEMU computes what the guest does (TCG), so that this works in machines that
// are virtual themselves.
//
// The guest is Debian's kernel with one program (command guest), both on a disk that the
// firmware reads by its own driver. The host talks to the guest on a serial port, and to
// QEMU by QMP.
//
// # libblkio
//
// testdata/blkio.c keeps 64 requests under way while regions of memory come and go.
//
//	make test-vhost
package vhost
