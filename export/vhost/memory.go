//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// maxSlots bounds the regions of a guest, maxMemory their bytes in all.
const (
	maxSlots  = 509
	maxMemory = 1 << 42
)

// mapping is a region that is mapped. Memories share it.
type mapping struct {
	desc  regionDesc
	whole []byte // what was mapped: from a border of pages on
	virtq.Region
	users atomic.Int32
}

// mapRegion maps a region of fd, which it does not keep.
func mapRegion(d regionDesc, fd int) (*mapping, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	end := d.offset + d.size
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("guest memory that is no file")
	case d.size == 0 || end < d.offset || d.size > maxMemory:
		return nil, fmt.Errorf("a region of %d bytes at %d", d.size, d.offset)
	case end > uint64(st.Size):
		return nil, fmt.Errorf("a region that ends at %d in a file of %d bytes", end, st.Size)
	}
	page := uint64(max(int64(os.Getpagesize()), int64(st.Blksize))) // that of huge pages is the block
	from := d.offset / page * page
	length := (end - from + page - 1) / page * page
	m := &mapping{desc: d}
	var err error
	if m.whole, err = unix.Mmap(fd, int64(from), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		return nil, fmt.Errorf("map %d bytes of guest memory: %w", length, err)
	}
	m.Region = virtq.Region{Guest: d.guest, User: d.user, Mem: m.whole[d.offset-from:][:d.size:d.size], Fixed: fixed(fd)}
	return m, nil
}

// fixed reports whether the file keeps its length and its pages: a memfd of plain
// pages that is sealed, or is now. Huge pages may be lacking when touched.
func fixed(fd int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || int64(fs.Type) != unix.TMPFS_MAGIC {
		return false
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return false
	}
	if seals&unix.F_SEAL_SHRINK != 0 {
		return true
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	return err == nil
}

// holds reports whether an address of this program lies in the mapping.
func (m *mapping) holds(addr uintptr) bool {
	return addr-uintptr(unsafe.Pointer(&m.whole[0])) < uintptr(len(m.whole))
}

func (m *mapping) release() {
	if m.users.Add(-1) == 0 {
		_ = unix.Munmap(m.whole)
	}
}

// memory is guest memory as of one SET_MEM_TABLE, ADD_MEM_REG or REM_MEM_REG. The
// session and each ring hold the one that they use, and one that a ring has
// left as long as requests of it are under way.
type memory struct {
	*virtq.Table
	maps  []*mapping
	users atomic.Int32
}

// newMemory makes the memory of maps, with one user. When it fails, what only it
// would have used is unmapped.
func newMemory(maps []*mapping) (*memory, error) {
	mem := &memory{maps: maps}
	mem.users.Store(1)
	var regions []virtq.Region
	total := uint64(0)
	for _, m := range maps {
		m.users.Add(1)
		regions = append(regions, m.Region)
		total += m.desc.size
	}
	var err error
	if mem.Table, err = virtq.NewTable(regions...); err == nil && (total > maxMemory || len(maps) > maxSlots) {
		err = errors.New("too much guest memory")
	}
	if err != nil {
		mem.release()
		return nil, err
	}
	return mem, nil
}

func (m *memory) hold() *memory {
	m.users.Add(1)
	return m
}

func (m *memory) release() {
	if m.users.Add(-1) == 0 {
		for _, p := range m.maps {
			p.release()
		}
	}
}

// rings is the memory of a ring of n; parts that are not there are nil.
func (m *memory) rings(a ringAddr, n int) virtq.Rings {
	return virtq.Rings{
		Desc:  m.User(a.desc, uint64(virtq.DescLen(n))),
		Avail: m.User(a.avail, uint64(virtq.AvailLen(n))),
		Used:  m.User(a.used, uint64(virtq.UsedLen(n))),
	}
}
