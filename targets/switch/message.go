package switchtarget

import (
	"strings"
	"syscall"

	"udm/dm"
)

// Message changes the table of regions. The changes of the items before a wrong one
// remain.
func (s *switcher) Message(args []string) (string, error) {
	if !strings.EqualFold(args[0], "set_region_mappings") {
		return "", dm.Errorf(syscall.EINVAL, "Unrecognised message received.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := uint64(0)
	for _, item := range args[1:] {
		var err error
		if item != "" && item[0]|0x20 == 'r' {
			at, err = s.repeat(item, at)
		} else {
			at, err = s.assign(item, at)
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

func invalid(item string) error {
	return dm.Errorf(syscall.EINVAL, "invalid set_region_mappings argument: '%s'", item)
}

// assign carries out "[REGION]:PATH". at is the region set last.
func (s *switcher) assign(item string, at uint64) (uint64, error) {
	region, path, ok := strings.Cut(item, ":")
	at++
	if region != "" {
		at, ok = hex(region)
	}
	n, ok2 := hex(path)
	switch {
	case !ok || !ok2:
		return 0, invalid(item)
	case at >= s.table.regions:
		return 0, dm.Errorf(syscall.EINVAL, "invalid set_region_mappings region number: %d >= %d", at, s.table.regions)
	case n >= uint64(len(s.paths)):
		return 0, dm.Errorf(syscall.EINVAL, "invalid set_region_mappings device: %d >= %d", n, len(s.paths))
	}
	s.table.set(at, n)
	return at, nil
}

// repeat carries out "Rn,m".
func (s *switcher) repeat(item string, at uint64) (uint64, error) {
	n, m, _ := strings.Cut(item[1:], ",")
	cycle, ok := hex(n)
	count, ok2 := hex(m)
	switch {
	case !ok || !ok2:
		return 0, invalid(item)
	case cycle == 0 || cycle-1 > at:
		return 0, dm.Errorf(syscall.EINVAL, "invalid set_region_mappings cycle length: %d > %d", cycle-1, at)
	case at+count < at || at+count >= s.table.regions:
		return 0, dm.Errorf(syscall.EINVAL, "invalid set_region_mappings region number: %d + %d >= %d", at, count, s.table.regions)
	}
	for range count {
		at++
		s.table.set(at, s.table.get(at-cycle))
	}
	return at, nil
}

// hex parses a number of hexadecimal digits. A number that does not fit wraps.
func hex(s string) (n uint64, ok bool) {
	for _, c := range []byte(s) {
		d := strings.IndexByte("0123456789abcdef", c|0x20)
		if d < 0 || c < '0' {
			return 0, false
		}
		n = n<<4 | uint64(d)
	}
	return n, s != ""
}
