package service

import (
	"fmt"
	"os"
	"path/filepath"

	"udm/blk/leaf"
	"udm/dm"
)

// blockName is Linux's name for the block device with a number.
func blockName(n dm.Number) string {
	switch n.Major {
	case dm.Major:
		return fmt.Sprintf("dm-%d", n.Minor)
	case leaf.LoopMajor:
		return fmt.Sprintf("loop%d", n.Minor)
	case leaf.RAMMajor:
		return fmt.Sprintf("ram%d", n.Minor)
	}
	if link, err := os.Readlink("/sys/dev/block/" + n.String()); err == nil {
		return filepath.Base(link)
	}
	return n.String()
}
