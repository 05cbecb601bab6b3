//go:build linux && (amd64 || arm64)

package run

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/ctl"
	"udm/run/blkioctl"
	"udm/run/notify"
)

// block answers an ioctl of a block device.
func (s *session) block(c *notify.Call) outcome {
	path := c.FD(int32(c.Args[0]))
	id, size, err := identify(path)
	if err != nil {
		return kernel
	}
	n, ok := s.opened.find(id)
	if !ok {
		return kernel
	}
	d, ok := s.blockDevice(n, size)
	if !ok {
		return failure(unix.ENXIO)
	}
	request := uint32(c.Args[1])
	if b, ok := blkioctl.Answer(request, d); ok {
		return ended(c.Write(c.Args[2], b))
	}
	switch request {
	case blkioctl.SetReadAhead:
		s.readAheads.set(n, c.Args[2])
		return succeed
	case blkioctl.SetBlockSize, blkioctl.SetReadOnly:
		return succeed
	case blkioctl.Flush:
		return wait(func() outcome { return ended(reopened(path, unix.O_RDONLY, unix.Fsync)) })
	case blkioctl.Reread, blkioctl.Partition: // as of a device without partitions
		return failure(unix.EINVAL)
	case blkioctl.Discard, blkioctl.SecureDiscard:
		return s.deallocate(c, d, unix.FALLOC_FL_PUNCH_HOLE)
	case blkioctl.ZeroOut:
		return s.deallocate(c, d, unix.FALLOC_FL_ZERO_RANGE)
	}
	return failure(unix.ENOTTY)
}

// blockDevice is what is known of a device; size is that of its file.
func (s *session) blockDevice(n blk.Number, size uint64) (blkioctl.Device, bool) {
	if s.disks.number(n) != nil {
		d := diskDevice(size)
		d.ReadAhead = s.readAheads.get(n)
		return d, true
	}
	v, ok := s.devices.number(n)
	d := mappedDevice(v)
	d.ReadAhead = s.readAheads.get(n)
	return d, ok
}

// diskDevice is what a disk in a file of a size is.
func diskDevice(size uint64) blkioctl.Device {
	return blkioctl.Device{Size: size, LogicalBlock: blk.SectorSize, PhysicalBlock: blk.SectorSize, MinIO: blk.SectorSize,
		DiscardGranularity: holeSize}
}

// holeSize is the size of the smallest hole of a file, on most file systems.
const holeSize = 4096

func mappedDevice(v ctl.Device) blkioctl.Device {
	d := diskDevice(v.Sectors * blk.SectorSize)
	if q := v.Queue; q != nil {
		d.LogicalBlock, d.PhysicalBlock, d.MinIO, d.OptIO = q.LogicalBlock, q.PhysicalBlock, max(q.MinIO, q.LogicalBlock), q.OptIO
		d.DiscardGranularity, d.Rotational = q.DiscardGranularity, q.Rotational
	}
	d.ReadOnly = v.ReadOnly
	return d
}

// deallocate discards or zeroes a range, by the file of the device.
func (s *session) deallocate(c *notify.Call, d blkioctl.Device, mode uint32) outcome {
	b := make([]byte, blkioctl.RangeSize)
	if c.Read(c.Args[2], b) != nil {
		return failure(unix.EFAULT)
	}
	offset, length, ok := d.Range(b)
	if !ok {
		return failure(unix.EINVAL)
	}
	path := c.FD(int32(c.Args[0]))
	return wait(func() outcome {
		return ended(reopened(path, unix.O_RDWR, func(fd int) error {
			return unix.Fallocate(fd, mode|unix.FALLOC_FL_KEEP_SIZE, int64(offset), int64(length))
		}))
	})
}

// reopened opens the file of a caller's descriptor once more.
func reopened(path string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(fd), unix.Close(fd))
}

// readAheads are the settings that programs have made. They have no effect but that they
// are shown: lvm compares them with what it wants.
type readAheads struct {
	mu      sync.Mutex
	sectors map[blk.Number]uint64 // guarded by mu
}

const defaultReadAhead = 256

func (r *readAheads) set(n blk.Number, sectors uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sectors[n] = sectors
}

func (r *readAheads) get(n blk.Number) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.sectors[n]; ok {
		return v
	}
	return defaultReadAhead
}
