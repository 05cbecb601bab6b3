// Package dmsetup is dmsetup over the daemon of udm: verb for verb, option for
// option, format for format and exit code for exit code what dmsetup 1.02.185
// does on Linux 6.1 (libdm/dm-tools/dmsetup.c and libdm of LVM2).
//
// A run is a [tool]: parsed options, a client of the daemon, and the streams.
// What a system call of libdm is there is a command of package ctl here, and its
// failure is reported in libdm's words:
//
//	device-mapper: reload ioctl on NAME (254:0) failed: Invalid argument
//	Command failed.
//
// docs/differences.md tells what is left out: udev, dmstats, IMA measurements.
package dmsetup
