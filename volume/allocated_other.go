//go:build !unix

package volume

import "io/fs"

// allocated is how many bytes of disk a file takes, at most.
func allocated(i fs.FileInfo) uint64 { return uint64(i.Size()) }
