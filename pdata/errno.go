package pdata

import (
	"syscall"

	"udm/blk"
	"udm/env"
)

// SuperErrno is the kernel's errno for err, because of which metadata on dev cannot be
// opened: ENOTBLK if the first block has the number of another one, and so is no
// superblock at all.
func SuperErrno(e env.Env, dev blk.Device, err error) syscall.Errno {
	p := make([]byte, blk.SectorSize)
	errno := ErrnoOf(err)
	if errno == syscall.EILSEQ && blk.ReadSectors(e, dev, p, 0) == nil && le.Uint64(p[8:]) != 0 {
		return syscall.ENOTBLK
	}
	return errno
}
