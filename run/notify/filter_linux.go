//go:build linux && (amd64 || arm64)

package notify

import (
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Filter selects the system calls to intercept.
type Filter struct {
	Calls  []uint32 // by number
	Ioctls []uint8  // of ioctl only those of these types
}

// Offsets in struct seccomp_data.
const (
	callOffset     = 0
	archOffset     = 4
	argumentOffset = 16
)

const ioctlTypeMask = 0xff00

// program is the filter as the kernel takes it: calls of other architectures are
// allowed, and so is everything else that is not selected. It ends so:
//
//	allow
//	notify
func (f Filter) program() []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ioctls := 2 + len(f.Ioctls) + 1 // instructions of the part on ioctl
	allow := 4 + ioctls + len(f.Calls)
	p := []unix.SockFilter{load(archOffset)}
	// jump compares; the targets are absolute.
	jump := func(k uint32, equal, other int) {
		at := len(p) + 1
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(equal - at), Jf: uint8(other - at), K: k})
	}
	notify := allow + 1
	jump(auditArch, 2, allow)
	p = append(p, load(callOffset))
	jump(unix.SYS_IOCTL, 4, 4+ioctls)
	p = append(p, load(argumentOffset+8), unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: ioctlTypeMask})
	for _, typ := range f.Ioctls {
		jump(uint32(typ)<<8, notify, len(p)+1)
	}
	p = append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	for _, nr := range slices.Sorted(slices.Values(f.Calls)) {
		jump(nr, notify, len(p)+1)
	}
	return append(p,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
}

// install puts the filter on this thread and returns the listener. Nothing may be
// opened or looked up from then on.
func (f Filter) install() (int, error) {
	p := f.program()
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
