package snapshot

import (
	"math"
	"math/bits"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// checkChunkSize checks a chunk size, in sectors, as the kernel does
// (dm_exception_store_set_chunk_size).
func checkChunkSize(sectors uint64, devs ...*dm.Dev) error {
	switch {
	case bits.OnesCount64(sectors) != 1:
		return dm.Errorf(syscall.EINVAL, "Chunk size is not a power of 2")
	case sectors > math.MaxInt32>>blk.SectorShift:
		return dm.Errorf(syscall.EINVAL, "Chunk size is too high")
	}
	for _, d := range devs {
		if sectors*blk.SectorSize%uint64(d.Limits().LogicalBlock) != 0 {
			return dm.Errorf(syscall.EINVAL, "Chunk size is not a multiple of device blocksize")
		}
	}
	return nil
}
