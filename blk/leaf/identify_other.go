//go:build !linux

package leaf

import (
	"os"
	"path/filepath"
	"syscall"

	"udm/blk"
)

// identify tells which file a path means.
func identify(path string) (identity, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return identity{}, err
	}
	info, err := os.Stat(real)
	if err == nil && info.IsDir() {
		err = syscall.EISDIR
	}
	return identity{kind: file, name: real}, err
}

func deviceNumber(uint64) blk.Number { return blk.Number{} }

func blockPath(blk.Number) string { return "" }
