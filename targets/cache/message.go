package cache

import (
	"strings"
	"syscall"

	"udm/dm"
)

// Message changes a setting, or takes blocks out of the cache.
func (c *cache) Message(args []string) (_ string, err error) {
	if c.isReadOnly() {
		return "", dm.Errorf(syscall.EOPNOTSUPP, "unable to service cache target messages in READ_ONLY or FAIL mode")
	}
	switch {
	case strings.EqualFold(args[0], "invalidate_cblocks"):
		err = c.invalidateRanges(args[1:])
	case len(args) != 2:
		err = invalid("a message of a cache is KEY VALUE, or invalidate_cblocks RANGE...")
	default:
		err = c.configure(args[0], args[1])
	}
	return "", err
}

func (c *cache) invalidateRanges(words []string) error {
	if c.mode != Passthrough {
		return dm.Errorf(syscall.EPERM, "cache has to be in passthrough mode for invalidation")
	}
	for _, w := range words {
		begin, end, err := c.parseRange(w)
		if err != nil {
			return err
		}
		ok := true
		c.store.call(func() { ok = c.invalidateRange(begin, end) })
		if !ok {
			return dm.Errorf(syscall.EINVAL, "the metadata of the cache cannot be changed")
		}
	}
	return nil
}

// parseRange parses BLOCK or BEGIN-END; END is not in the range.
func (c *cache) parseRange(w string) (begin, end uint64, err error) {
	first, last, two := strings.Cut(w, "-")
	const most = 1<<64 - 1
	begin, err = dm.ParseUint(first, most)
	end = begin + 1
	if two && err == nil {
		end, err = dm.ParseUint(last, most)
	}
	c.mu.Lock()
	blocks := uint64(c.blocks)
	c.mu.Unlock()
	if err != nil || begin >= blocks || end > blocks || begin >= end {
		return 0, 0, dm.Errorf(syscall.EINVAL, "%s is no range of the %d blocks of the cache; write BLOCK or BEGIN-END", w, blocks)
	}
	return begin, end, nil
}

// invalidateRange takes blocks out of the cache that no bio is taking out.
func (c *cache) invalidateRange(begin, end uint64) bool {
	for cb := uint32(begin); uint64(cb) < end; cb++ {
		c.mu.Lock()
		oblock, ok := c.policy.Mapped(cb)
		ok = ok && c.locks[oblock] == nil
		c.mu.Unlock()
		if !ok {
			continue
		}
		if !c.changeMetadata(func() error { return c.store.md.Remove(cb) }) {
			return false
		}
		c.mu.Lock()
		c.policy.Invalidate(cb)
		c.mu.Unlock()
	}
	return true
}
