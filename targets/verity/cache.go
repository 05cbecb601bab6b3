package verity

import (
	"sync"

	"udm/env"
)

// maxCached bounds the verified hash blocks of a target, in bytes.
const maxCached = 8 << 20

// cache holds at most limit verified hash blocks, keyed by their position on the hash
// device in hash blocks. It evicts with the CLOCK (second-chance) algorithm.
type cache struct {
	limit int
	wait  env.Wait // for entries that are loading

	mu      sync.Mutex
	entries map[uint64]*entry // guarded by mu
	hand    *entry            // guarded by mu; the ring of loaded entries
}

// entry is a hash block that is loaded or loading.
type entry struct {
	position   uint64
	data       []byte // guarded by mu until set; nil while loading, then immutable
	used       bool   // guarded by mu; since it was loaded or the hand passed it
	next, prev *entry // guarded by mu; the ring
}

func (c *cache) init(e env.Env, blockSize int) {
	c.limit = max(16, maxCached/blockSize)
	c.wait = e.NewWait()
	c.entries = make(map[uint64]*entry)
}

// get returns a loaded block, or nil.
func (c *cache) get(position uint64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[position]
	if e == nil || e.data == nil {
		return nil
	}
	e.used = true
	return e.data
}

// begin returns a loaded block, waiting for it if another worker is loading it. If it
// returns nil, the caller must load the block and call end.
func (c *cache) begin(position uint64) (data []byte) {
	c.wait.Until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		e := c.entries[position]
		switch {
		case e == nil:
			c.entries[position] = &entry{position: position}
		case e.data == nil:
			return false
		default:
			e.used = true
			data = e.data
		}
		return true
	})
	return data
}

// end finishes a load for which begin returned nil. data is the verified block, or nil
// if the load failed; the next caller of begin then tries again.
func (c *cache) end(position uint64, data []byte) {
	c.mu.Lock()
	e := c.entries[position]
	if data == nil {
		delete(c.entries, position)
	} else {
		e.data = data
		c.insert(e)
		for len(c.entries) > c.limit && c.evict() {
		}
	}
	c.mu.Unlock()
	c.wait.Wake()
}

// insert puts e where the hand reaches it last.
func (c *cache) insert(e *entry) {
	if c.hand == nil {
		e.next, e.prev = e, e
		c.hand = e
		return
	}
	e.next, e.prev = c.hand, c.hand.prev
	e.prev.next, e.next.prev = e, e
}

// evict drops the next block that was not used since the hand last passed it. It reports
// false if the ring is empty.
func (c *cache) evict() bool {
	for c.hand != nil {
		e := c.hand
		c.hand = e.next
		if e.used {
			e.used = false
			continue
		}
		delete(c.entries, e.position)
		e.prev.next, e.next.prev = e.next, e.prev
		if c.hand == e {
			c.hand = nil
		}
		return true
	}
	return false
}
