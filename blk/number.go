package blk

import (
	"fmt"
	"strconv"
	"strings"
)

// Number is the number of a block device in Linux.
type Number struct{ Major, Minor uint32 }

func (n Number) String() string { return fmt.Sprintf("%d:%d", n.Major, n.Minor) }

// ParseNumber parses MAJOR:MINOR.
func ParseNumber(s string) (n Number, ok bool) {
	major, minor, ok := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	return Number{uint32(a), uint32(b)}, ok && err1 == nil && err2 == nil
}
