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

// maxSlots is the maximum number of guest memory regions, maxMemory their total size
// in bytes.
const (
	maxSlots  = 509
	maxMemory = 1 << 42
)

// mapping is a mapped region. Memories share it.
type mapping struct {
	desc  regionDesc
	file  int    // for the server after this one; -1: it has it
	whole []byte // the mapped range, which starts at a page boundary
	virtq.Region
	users atomic.Int32
}

// mapRegion maps a region of fd. It does not keep fd.
func mapRegion(d regionDesc, fd int) (*mapping, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	end := d.offset + d.size
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("guest memory that is not a file")
	case d.size == 0 || end < d.offset || d.size > maxMemory:
		return nil, fmt.Errorf("invalid region of %d bytes at %d", d.size, d.offset)
	case end > uint64(st.Size):
		return nil, fmt.Errorf("a region that ends at %d in a file of %d bytes", end, st.Size)
	}
	page := uint64(max(int64(os.Getpagesize()), int64(st.Blksize))) // for huge pages the block size is the page size
	from := d.offset / page * page
	length := (end - from + page - 1) / page * page
	m := &mapping{desc: d}
	var err error
	if m.file, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("keep the file of guest memory: %w", err)
	}
	if m.whole, err = unix.Mmap(fd, int64(from), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		closeFD(&m.file)
		return nil, fmt.Errorf("map %d bytes of guest memory: %w", length, err)
	}
	m.Region = virtq.Region{Guest: d.guest, User: d.user, Mem: m.whole[d.offset-from:][:d.size:d.size], Fixed: fixed(fd)}
	return m, nil
}

// fixed reports whether the file keeps its length and its pages: it is a memfd of
// normal pages that is sealed, or could be sealed now. Huge pages are not fixed,
// because they may be missing when accessed.
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

// holds reports whether an address in this process lies in the mapping.
func (m *mapping) holds(addr uintptr) bool {
	return addr-uintptr(unsafe.Pointer(&m.whole[0])) < uintptr(len(m.whole))
}

func (m *mapping) release() {
	if m.users.Add(-1) == 0 {
		_ = unix.Munmap(m.whole)
		closeFD(&m.file)
	}
}

// memory is guest memory after one SET_MEM_TABLE, ADD_MEM_REG or REM_MEM_REG. The
// session and each ring hold the one that they use. A ring also holds a replaced one
// as long as requests use it.
type memory struct {
	*virtq.Table
	maps  []*mapping
	users atomic.Int32
}

// newMemory makes a memory of maps with one reference. If it fails, it unmaps what
// nobody else uses.
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

// rings returns the memory of a ring of n entries; missing parts are nil.
func (m *memory) rings(a ringAddr, n int, packed bool) virtq.Rings {
	desc, avail, used := virtq.Lens(n, packed)
	return virtq.Rings{Desc: m.User(a.desc, uint64(desc)), Avail: m.User(a.avail, uint64(avail)), Used: m.User(a.used, uint64(used))}
}
