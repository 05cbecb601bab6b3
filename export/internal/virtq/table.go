package virtq

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Region is a piece of guest memory that is contiguous in every view.
type Region struct {
	Guest uint64 // guest address, used in descriptors
	User  uint64 // address in the front end, used for rings
	Mem   []byte
	// Fixed means that the memory stays valid whatever its owner does. Any goroutine
	// may access it.
	Fixed bool
}

// Table is guest memory at one moment. It is immutable: running rings get a new one
// by [Queue.Move].
type Table struct {
	regions []Region // by Guest
}

// NewTable checks the regions: none may be empty, wrap around or overlap another one,
// in either view.
func NewTable(regions ...Region) (*Table, error) {
	t := &Table{regions: slices.Clone(regions)}
	views := []func(*Region) uint64{
		func(r *Region) uint64 { return r.User },
		func(r *Region) uint64 { return r.Guest }, // last: the order that stays
	}
	for _, address := range views {
		slices.SortFunc(t.regions, func(a, b Region) int { return cmp.Compare(address(&a), address(&b)) })
		if err := t.check(address); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *Table) check(address func(*Region) uint64) error {
	for i := range t.regions {
		r := &t.regions[i]
		first, n := address(r), uint64(len(r.Mem))
		if n == 0 {
			return errors.New("a region of guest memory is empty")
		}
		if first+n < first {
			return fmt.Errorf("the region of guest memory at %#x wraps around", first)
		}
		if i+1 < len(t.regions) && first+n > address(&t.regions[i+1]) {
			return fmt.Errorf("regions of guest memory overlap at %#x", address(&t.regions[i+1]))
		}
	}
	return nil
}

// Regions returns the regions in order of guest addresses.
func (t *Table) Regions() []Region { return t.regions }

// Guest returns the n bytes of guest memory at addr, or nil unless one region holds
// them all.
func (t *Table) Guest(addr, n uint64) []byte {
	if p, _ := t.piece(addr, n); uint64(len(p)) == n {
		return p
	}
	return nil
}

// User returns the n bytes at the front end's address addr, or nil unless one region
// holds them all.
func (t *Table) User(addr, n uint64) []byte {
	for i := range t.regions {
		if r := &t.regions[i]; addr >= r.User && addr-r.User < uint64(len(r.Mem)) {
			return r.part(addr-r.User, n, true)
		}
	}
	return nil
}

// piece returns guest memory from addr on: n bytes, or fewer at the end of a region.
func (t *Table) piece(addr, n uint64) (p []byte, fixed bool) {
	i := sort.Search(len(t.regions), func(i int) bool { return t.regions[i].Guest > addr }) - 1
	if i < 0 {
		return nil, false
	}
	r := &t.regions[i]
	return r.part(addr-r.Guest, n, false), r.Fixed
}

func (r *Region) part(off, n uint64, whole bool) []byte {
	size := uint64(len(r.Mem))
	if off >= size || whole && n > size-off {
		return nil
	}
	n = min(n, size-off)
	return r.Mem[off : off+n : off+n]
}
