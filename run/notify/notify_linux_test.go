//go:build linux && (amd64 || arm64)

package notify

import (
	"testing"

	"golang.org/x/sys/unix"
)

// verdict runs a filter on a call, as the kernel does.
func verdict(t *testing.T, p []unix.SockFilter, data map[uint32]uint32) uint32 {
	t.Helper()
	var acc uint32
	for at := 0; at < len(p); at++ {
		switch in := p[at]; in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = data[in.K]
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if acc == in.K {
				at += int(in.Jt)
			} else {
				at += int(in.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("unknown instruction %#x", in.Code)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

// Each call number, with ioctls of every type, is notified exactly if it was selected.
func TestFilter(t *testing.T) {
	f := Filter{Calls: []uint32{unix.SYS_OPENAT, unix.SYS_STATX, unix.SYS_MKNODAT, 0, 450}, Ioctls: []uint8{0xfd, 0x12}}
	selected := map[uint32]bool{unix.SYS_OPENAT: true, unix.SYS_STATX: true, unix.SYS_MKNODAT: true, 0: true, 450: true}
	for nr := range uint32(500) {
		for typ := range uint32(256) {
			call := map[uint32]uint32{archOffset: auditArch, callOffset: nr, argumentOffset + 8: 0xabcd0034 | typ<<8}
			want := selected[nr] || nr == unix.SYS_IOCTL && (typ == 0xfd || typ == 0x12)
			if got := verdict(t, f.program(), call) == unix.SECCOMP_RET_USER_NOTIF; got != want {
				t.Fatalf("call %d, type %#x: %v", nr, typ, got)
			}
			if nr != unix.SYS_IOCTL {
				break
			}
		}
	}
	other := map[uint32]uint32{archOffset: unix.AUDIT_ARCH_I386, callOffset: unix.SYS_OPENAT}
	if verdict(t, f.program(), other) != unix.SECCOMP_RET_ALLOW {
		t.Error("calls of another architecture are intercepted")
	}
}

func TestPending(t *testing.T) {
	for status, want := range map[string]bool{
		"SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n": false,
		"SigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\nSigBlk:\t0000000000000000\n": true,
		"SigPnd:\t0000000000000002\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000002\n": false,
		"SigPnd:\t0000000000000002\nShdPnd:\t0000000000000004\nSigBlk:\t0000000000000002\n": true,
		"Name:\tx\n": false,
	} {
		if got := pending(status); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}
