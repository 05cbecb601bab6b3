//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The part of struct dm_ioctl (include/uapi/linux/dm-ioctl.h) that a status request needs.
const (
	dmIoctlSize  = 312
	dmVersionOff = 0  // u32[3]
	dmSizeOff    = 12 // u32
	dmDevOff     = 40 // u64
	dmNameOff    = 48 // char[128]
	dmDevStatus  = 0xc138fd07
)

// mappedMinor asks for the minor number of a device by its name. The node below /dev/mapper would not do: dmsetup removes it
// when it marks a device for deferred removal.
func mappedMinor(name string) (uint32, error) {
	fd, err := unix.Open("/dev/mapper/control", unix.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var arg [dmIoctlSize]byte
	binary.LittleEndian.PutUint32(arg[dmVersionOff:], 4)
	binary.LittleEndian.PutUint32(arg[dmSizeOff:], dmIoctlSize)
	copy(arg[dmNameOff:dmNameOff+127], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), dmDevStatus, uintptr(unsafe.Pointer(&arg)))
	if errors.Is(errno, unix.ENXIO) {
		return 0, unix.ENOENT
	}
	if errno != 0 {
		return 0, errno
	}
	return unix.Minor(binary.LittleEndian.Uint64(arg[dmDevOff:])), nil
}
