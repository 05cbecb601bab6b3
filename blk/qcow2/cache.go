package qcow2

import (
	"container/list"
	"sync"
)

// cache holds the most recently used pieces of images.
type cache struct {
	limit int // bytes

	mu     sync.Mutex
	used   int                   // guarded by mu; bytes
	pieces map[key]*list.Element // guarded by mu; of *piece
	recent list.List             // guarded by mu; most recent first
}

type key struct {
	l  *layer
	at uint64
}

type piece struct {
	key  key
	data []byte // immutable
}

func newCache(limit int) *cache { return &cache{limit: limit, pieces: make(map[key]*list.Element)} }

// get returns a piece, or nil.
func (c *cache) get(k key) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.pieces[k]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*piece).data
}

// put adds a piece and evicts others until there is room.
func (c *cache) put(k key, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pieces[k] != nil {
		return
	}
	c.pieces[k] = c.recent.PushFront(&piece{k, p})
	for c.used += len(p); c.used > c.limit && c.recent.Len() > 1; {
		old := c.recent.Remove(c.recent.Back()).(*piece)
		delete(c.pieces, old.key)
		c.used -= len(old.data)
	}
}
