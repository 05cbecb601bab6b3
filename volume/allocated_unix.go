//go:build unix

package volume

import (
	"io/fs"
	"syscall"
)

// allocated is how many bytes of disk a file takes.
func allocated(i fs.FileInfo) uint64 {
	if st, ok := i.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Blocks) * 512
	}
	return uint64(i.Size())
}
