package verity

import (
	"sync"

	"udm/env"
)

// maxCached bounds the memory of a target's verified hash blocks, in bytes.
const maxCached = 8 << 20

// cache keeps hash blocks that were verified, by their position. It has at most most
// of them, and drops those that were not used for longest, roughly: a second chance.
type cache struct {
	most int
	wait env.Wait // for entries that are loading

	mu      sync.Mutex
	entries map[uint64]*entry // guarded by mu
	hand    *entry            // guarded by mu; a ring of those that are loaded
}

// entry is a hash block, or one that somebody loads.
type entry struct {
	position   uint64
	data       []byte // nil: loading; not changed once set
	used       bool   // guarded by mu; since it was loaded or the hand came by
	next, prev *entry // guarded by mu; of the ring
}

func (c *cache) init(e env.Env, blockSize int) {
	c.most = max(16, maxCached/blockSize)
	c.wait = e.NewWait()
	c.entries = make(map[uint64]*entry)
}

// look returns a block that is there, nil for none.
func (c *cache) look(position uint64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[position]
	if e == nil || e.data == nil {
		return nil
	}
	e.used = true
	return e.data
}

// begin returns a block that is there, or nil, and then the caller loads it and calls
// end. It waits while somebody else loads it.
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

// end says how the loading that begin has asked for went: data is the verified block,
// nil if it failed.
func (c *cache) end(position uint64, data []byte) {
	c.mu.Lock()
	e := c.entries[position]
	if data == nil {
		delete(c.entries, position)
	} else {
		e.data = data
		c.insert(e)
		for len(c.entries) > c.most && c.evict() {
		}
	}
	c.mu.Unlock()
	c.wait.Wake()
}

// insert puts e behind all others of the ring.
func (c *cache) insert(e *entry) {
	if c.hand == nil {
		e.next, e.prev = e, e
		c.hand = e
		return
	}
	e.next, e.prev = c.hand, c.hand.prev
	e.prev.next, e.next.prev = e, e
}

// evict drops the next block that was not used since the hand came by.
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
