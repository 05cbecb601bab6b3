//go:build unix

package secret

import "golang.org/x/sys/unix"

// protect returns pages of at least n bytes, locked if the user's limit allows it, or nil.
func protect(n int) []byte {
	p, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	_ = unix.Mlock(p) // without it the key may be swapped out, as any memory
	hide(p)
	return p
}

func release(p []byte) { _ = unix.Munmap(p) } // fails for no mapping of ours
