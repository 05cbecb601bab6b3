package leaf

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/env"
)

// source is how to open a disk.
type source struct {
	name     string // what to write in a table
	open     func(e env.Env, write bool) (blk.Device, error)
	volatile bool   // one device for readers and writers, whose content is its own
	block    uint32 // smallest logical block in bytes; at least 512
}

// resolve tells which disk a name of a table means.
func resolve(name string) (source, identity, error) {
	size, rest, err := cutBlock(name)
	if err != nil {
		return source{}, identity{}, errorf(syscall.EINVAL, "%s: %v", name, err)
	}
	src, id, err := resolvePlain(rest)
	src.name, src.block = name, size
	return src, id, err
}

// resolvePlain is resolve for a name without block=.
func resolvePlain(name string) (source, identity, error) {
	switch {
	case strings.HasPrefix(name, "mem:"), strings.HasPrefix(name, "null:"):
		return memorySource(name)
	case filepath.IsAbs(name):
		id, err := identify(name)
		if err != nil {
			return source{}, id, openError(name, err)
		}
		return fileSource(name), id, nil
	case name == "":
		return source{}, identity{}, errorf(syscall.ENXIO, "no device has that number")
	}
	return source{}, identity{}, errorf(syscall.ENODEV, "%s: not an absolute path", name)
}

func memorySource(name string) (source, identity, error) {
	word, rest, _ := strings.Cut(name, ":")
	size, _, _ := strings.Cut(rest, ":")
	sectors, err := ParseSize(size)
	if err != nil {
		return source{}, identity{}, errorf(syscall.EINVAL, "%s: %v", name, err)
	}
	open := func(env.Env, bool) (blk.Device, error) { return memdev.New(sectors), nil }
	if word == "null" {
		open = func(env.Env, bool) (blk.Device, error) { return nulldev.New(sectors, nulldev.ZeroReads), nil }
	}
	return source{open: open, volatile: true}, identity{kind: memory, name: name}, nil
}

// ParseSize reads a size in bytes, or with K, M, G or T in powers of 1024, and
// returns it in sectors. It must be a multiple of 512 and not zero.
func ParseSize(s string) (sectors uint64, err error) {
	shift := 0
	if i := strings.IndexByte("KMGT", lastUpper(s)); i >= 0 {
		shift, s = 10*(i+1), s[:len(s)-1]
	}
	n, err := strconv.ParseUint(s, 10, 64)
	bytes := n << shift
	switch {
	case err != nil || bytes>>shift != n || int64(bytes) < 0:
		return 0, fmt.Errorf("%q is not a size; write bytes or a number with K, M, G or T", s)
	case bytes == 0 || bytes%blk.SectorSize != 0:
		return 0, fmt.Errorf("a size of %d bytes is not a multiple of %d", bytes, blk.SectorSize)
	}
	return bytes / blk.SectorSize, nil
}

// lastUpper is the last character in upper case, 0 when there is none.
func lastUpper(s string) byte {
	if s == "" {
		return 0
	}
	return strings.ToUpper(s[len(s)-1:])[0]
}
