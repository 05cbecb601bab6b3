package leaf

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"udm/blk"
	"udm/blk/partition"
	"udm/dm"
)

// parsePartition parses N:DISK. The disk is opened by its own name, so that several
// partitions share it.
func parsePartition(name, rest string) (source, error) {
	number, disk, _ := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return source{}, dm.Errorf(syscall.EINVAL, "%s: %q is not the number of a partition", name, number)
	}
	src, err := resolve(disk)
	if err != nil {
		return source{}, err
	}
	below := src.id
	return source{
		id: identity{dev: below.dev, ino: below.ino, name: fmt.Sprintf("%d:%s%s", n, below.scheme, below.name)},
		open: func(o *Opener, write bool) (blk.Device, error) {
			d, _, err := o.Open(disk, write)
			if err != nil {
				return nil, err
			}
			sub, err := partition.Open(o.env, d, int(n))
			if err != nil {
				d.Close()
				return nil, err
			}
			return part{sub.(blk.ExtentsDevice), sub, d}, nil
		},
	}, nil
}

// part is a partition. Closing it closes the disk.
type part struct {
	blk.ExtentsDevice
	blk.Device
	disk blk.Device
}

func (p part) Close() error { return p.disk.Close() }

// Report is the disk's report.
func (p part) Report() blk.Report {
	r, _ := blk.ReportOf(p.disk)
	return r
}
