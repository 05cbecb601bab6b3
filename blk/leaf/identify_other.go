//go:build !linux

package leaf

import (
	"os"
	"path/filepath"
	"syscall"

	"udm/blk"
)

// identify returns the identity of the file at a path.
func identify(path string) (identity, blk.Number, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return identity{}, blk.Number{}, err
	}
	info, err := os.Stat(real)
	if err == nil && info.IsDir() {
		err = syscall.EISDIR
	}
	return identity{name: real}, blk.Number{}, err
}

func blockPath(blk.Number) string { return "" }
