package secret

import "golang.org/x/sys/unix"

// hide keeps pages out of core dumps and of child processes.
func hide(p []byte) {
	_ = unix.Madvise(p, unix.MADV_DONTDUMP)
	_ = unix.Madvise(p, unix.MADV_DONTFORK)
}
