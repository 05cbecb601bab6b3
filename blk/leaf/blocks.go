package leaf

import (
	"strconv"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// maxBlock is the largest logical block in bytes that the kernel allows: a page.
const maxBlock = 4096

// parseBlock returns the disk with the name after BYTES, with blocks of at least BYTES.
func parseBlock(name, rest string) (source, error) {
	word, disk, _ := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil || n < blk.SectorSize || n > maxBlock || n&(n-1) != 0 {
		return source{}, dm.Errorf(syscall.EINVAL, "%s: a logical block cannot have %q bytes; use a power of two from %d to %d", name, word, blk.SectorSize, maxBlock)
	}
	src, err := resolve(disk)
	src.block = max(src.block, uint32(n))
	return src, err
}

// withBlocks returns d with logical blocks of at least size bytes.
func withBlocks(d blk.Device, size uint32) blk.Device {
	if d.Limits().LogicalBlock >= size {
		return d
	}
	return blocks{d, size}
}

// blocks is a device that announces larger logical blocks than its own. It does not check
// the alignment of bios; the checkdev around it does.
type blocks struct {
	blk.Device
	size uint32 // bytes
}

func (b blocks) Limits() blk.Limits {
	l := b.Device.Limits()
	l.Size -= l.Size % uint64(b.size/blk.SectorSize)
	l.LogicalBlock = b.size
	l.PhysicalBlock = max(l.PhysicalBlock, b.size)
	l.MinIO = max(l.MinIO, b.size)
	if l.DiscardGranularity != 0 {
		l.DiscardGranularity = max(l.DiscardGranularity, b.size)
	}
	return l
}
