package memdev

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"udm/blk"
)

// The content of a large disk lies in memory that the kernel may give huge pages to, even if
// a page of the disk reaches from one of them into the next.
func TestLargeDiskAsksForHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		return // this kernel has none
	}
	for _, c := range []struct {
		name    string
		sectors uint64
		opts    []Option
		want    bool
	}{
		{"large", hugeFrom, nil, true},
		{"small", hugeFrom - 1, nil, false},
		{"with a cache", hugeFrom, []Option{Volatile}, false},
	} {
		d := New(c.sectors, c.opts...)
		if d.pages.huge != c.want {
			t.Errorf("%s: asks for huge pages: %v", c.name, d.pages.huge)
		}
		d.Close()
	}
	d := New(hugeFrom)
	for n := range uint64(hugeFrom * blk.SectorSize / pageSize) {
		p := d.pages.need(n)
		first, last := uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(p))+pageSize-1
		if n%97 == 0 && !(mayBeHuge(t, first) && mayBeHuge(t, last)) {
			t.Fatalf("page %d at %x lies in memory without huge pages", n, first)
		}
	}
}

// mayBeHuge reports whether the kernel was asked for huge pages at addr.
func mayBeHuge(t *testing.T, addr uintptr) bool {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	here := false
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &from, &to); n == 2 {
			here = from <= addr && addr < to
		}
		if flags, ok := strings.CutPrefix(s.Text(), "VmFlags:"); ok && here {
			return strings.Contains(flags, " hg")
		}
	}
	t.Fatalf("no mapping at %x", addr)
	return false
}
