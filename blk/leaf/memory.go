package leaf

import (
	"fmt"
	"strconv"
	"strings"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nulldev"
)

func parseMemory(name, rest string) (source, error) {
	return parseSized(name, rest, func(sectors uint64) blk.Device { return memdev.New(sectors) })
}

func parseNull(name, rest string) (source, error) {
	return parseSized(name, rest, func(sectors uint64) blk.Device { return nulldev.New(sectors, nulldev.ZeroReads) })
}

// parseSized parses SIZE[:NAME].
func parseSized(name, rest string, open func(sectors uint64) blk.Device) (source, error) {
	size, _, _ := strings.Cut(rest, ":")
	sectors, err := ParseSize(size)
	if err != nil {
		return source{}, openError(name, err)
	}
	return source{
		id: identity{name: rest}, shared: true,
		open: func(*Opener, bool) (blk.Device, error) { return open(sectors), nil },
	}, nil
}

// ParseSize parses a size in bytes, or with K, M, G, T, P or E in powers of 1024, and returns
// it in sectors. It must be a multiple of 512 and not zero.
func ParseSize(s string) (sectors uint64, err error) {
	shift := 0
	if i := strings.IndexByte("KMGTPE", lastUpper(s)); i >= 0 {
		shift, s = 10*(i+1), s[:len(s)-1]
	}
	n, err := strconv.ParseUint(s, 10, 64)
	bytes := n << shift
	switch {
	case err != nil || bytes>>shift != n || int64(bytes) < 0:
		return 0, fmt.Errorf("%q is not a size; give a number of bytes, or a number with K, M, G, T, P or E", s)
	case bytes == 0 || bytes%blk.SectorSize != 0:
		return 0, fmt.Errorf("a size of %d bytes is not a multiple of %d", bytes, blk.SectorSize)
	}
	return bytes / blk.SectorSize, nil
}

// lastUpper returns the last character in upper case, or 0.
func lastUpper(s string) byte {
	if s == "" {
		return 0
	}
	return strings.ToUpper(s[len(s)-1:])[0]
}
