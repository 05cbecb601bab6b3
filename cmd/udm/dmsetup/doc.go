// Package dmsetup is dmsetup for the daemon of udm: its commands, options, output
// formats and exit codes are those of dmsetup 1.02.185 on Linux 6.1
// (libdm/dm-tools/dmsetup.c and libdm of LVM2).
//
// A run is a [tool]: parsed options, a client of the daemon, and the streams. Where
// libdm makes a system call, this package sends a command of package ctl, and reports
// its failure in libdm's words:
//
//	device-mapper: reload ioctl on NAME (254:0) failed: Invalid argument
//	Command failed.
//
// docs/differences.md lists what is left out: udev, dmstats, IMA measurements.
package dmsetup
