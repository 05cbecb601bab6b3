package memdev

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugeSize = 2 << 20 // bytes; of the kernel's huge pages, where a page has 4 KiB

var advised atomic.Uintptr // the last huge page that was asked for

// adviseHuge asks the kernel for the huge pages around p, which nobody has touched yet.
// Where the kernel gives all memory such pages, it changes nothing. What else of the heap
// lies there does not matter, nor that two goroutines may ask for the same ones.
func adviseHuge(p *page) {
	const mask = hugeSize - 1
	first, last := uintptr(unsafe.Pointer(p))&^mask, (uintptr(unsafe.Pointer(p))+unsafe.Sizeof(*p)-1)&^mask
	if advised.Load() != last {
		advised.Store(last)
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, first, last-first+hugeSize, unix.MADV_HUGEPAGE)
	}
}
