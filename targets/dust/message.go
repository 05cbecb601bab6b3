package dust

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"syscall"

	"udm/dm"
)

// Message carries out the messages of the manual.
func (d *dust) Message(args []string) (string, error) {
	word := strings.ToLower(args[0])
	switch len(args) {
	case 1:
		return d.command(word)
	case 2:
		return d.ofBlock(word, args[1], "0")
	case 3:
		if word == "addbadblock" {
			return d.ofBlock(word, args[1], args[2])
		}
		return "", unknown(word)
	}
	return "", dm.Errorf(syscall.EINVAL, "invalid number of arguments '%d'", len(args))
}

func unknown(word string) error {
	return dm.Errorf(syscall.EINVAL, "unrecognized message '%s' received", word)
}

func (d *dust) command(word string) (string, error) {
	switch word {
	case "addbadblock", "removebadblock", "queryblock":
		return "", dm.Errorf(syscall.EINVAL, "%s requires an additional argument", word)
	case "enable", "disable":
		d.enabled.Store(word == "enable")
		return "", nil
	case "quiet":
		d.quiet.Store(!d.quiet.Load())
		return "", nil
	case "countbadblocks":
		return fmt.Sprintf("countbadblocks: %d badblock(s) found", len(d.list())), nil
	case "listbadblocks":
		return d.listing(), nil
	case "clearbadblocks":
		if d.clear() {
			return "dust_clear_badblocks: badblocks cleared", nil
		}
		return "dust_clear_badblocks: no badblocks found", nil
	}
	return "", unknown(word)
}

func (d *dust) list() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.bad))
}

func (d *dust) listing() string {
	var b strings.Builder
	for _, n := range d.list() {
		fmt.Fprintln(&b, n)
	}
	if b.Len() == 0 {
		return "No blocks in badblocklist"
	}
	return b.String()
}

// clear makes all blocks good, and reports whether any was bad.
func (d *dust) clear() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	had := len(d.bad) > 0
	clear(d.bad)
	return had
}

// ofBlock carries out a message about one block. As in Linux, the block after the last
// one of the device is allowed.
func (d *dust) ofBlock(word, number, count string) (string, error) {
	n, err := dm.ParseUint(number, math.MaxUint64)
	if err != nil {
		return "", err
	}
	fails, err := dm.ParseUint(count, math.MaxUint64)
	if err != nil {
		return "", err
	}
	if fails = uint64(uint32(fails)); fails > math.MaxUint8 {
		return "", dm.Errorf(syscall.EINVAL, "selected write fail count out of range")
	}
	if n > d.segment.Dev.Limits().Size/d.block {
		return "", dm.Errorf(syscall.EINVAL, "selected block value out of range")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, bad := d.bad[n]
	switch word {
	case "addbadblock":
		return "", d.addLocked(n, bad, uint8(fails))
	case "removebadblock":
		return "", d.removeLocked(n, bad)
	case "queryblock":
		return fmt.Sprintf("dust_query_block: block %d %s in badblocklist", n, found(bad)), nil
	}
	return "", unknown(word)
}

func (d *dust) addLocked(n uint64, bad bool, fails uint8) error {
	if bad {
		return dm.Errorf(syscall.EINVAL, "dust_add_block: block %d already in badblocklist", n)
	}
	d.bad[n] = fails
	return nil
}

func (d *dust) removeLocked(n uint64, bad bool) error {
	if !bad {
		return dm.Errorf(syscall.EINVAL, "dust_remove_block: block %d not found in badblocklist", n)
	}
	delete(d.bad, n)
	return nil
}

func found(bad bool) string {
	if bad {
		return "found"
	}
	return "not found"
}
