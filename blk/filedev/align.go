package filedev

import "unsafe"

func address(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }

// aligned returns n zero bytes at an address that is a multiple of align.
func aligned(n int, align uint64) []byte {
	if align == 0 {
		return make([]byte, n)
	}
	p := make([]byte, uint64(n)+align)
	skip := (align - address(p)%align) % align
	return p[skip : skip+uint64(n)]
}

// misaligned reports whether the file cannot transfer bufs as they are.
func (d *Device) misaligned(bufs [][]byte) bool {
	if d.align == 0 {
		return false
	}
	for _, p := range bufs {
		if (address(p)|uint64(len(p)))%d.align != 0 {
			return true
		}
	}
	return false
}
