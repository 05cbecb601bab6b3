// Package gate keeps writes that change part of a block apart from all other writes to
// the same device, whichever server they come through. Such a write reads the block,
// changes its bytes and writes it back; another write to the block in between would be
// lost. NBD and FUSE have clients here. What vhost-user and ublk serve has one user, who
// writes whole blocks.
//
// Each client counts its own writes in flight, so that clients share no cache line that
// they write to. A client that writes part of a block closes the gate and waits until
// all counts are 0; writes that come meanwhile wait until it opens the gate again.
//
// Lock order: gate.alone, gate.mu. gates.mu is a leaf.
package gate

import (
	"slices"
	"sync"
	"sync/atomic"
)

// gate belongs to one device.
type gate struct {
	key   any
	users int // guarded by gates.mu

	alone  sync.Mutex  // held by whoever closed the gate, and briefly by those who wait at it
	closed atomic.Bool // changed by the holder of alone

	mu      sync.Mutex
	idle    *sync.Cond // on mu; signalled when a count becomes 0 while the gate is closed
	clients []*Client  // guarded by mu
}

// gates are the gates of all devices with clients in this process.
var gates = struct {
	mu sync.Mutex
	of map[any]*gate // guarded by mu
}{of: make(map[any]*gate)}

// Client is a client of a device. Join comes before all other methods, and Leave after
// them. All methods between are safe for concurrent use.
type Client struct {
	gate   *gate
	writes atomic.Int32 // in flight
}

// Join makes c a client of the device that key identifies.
func (c *Client) Join(key any) {
	gates.mu.Lock()
	g := gates.of[key]
	if g == nil {
		g = &gate{key: key}
		g.idle = sync.NewCond(&g.mu)
		gates.of[key] = g
	}
	g.users++
	gates.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clients = append(g.clients, c)
	c.gate = g
}

// Leave undoes Join. No write may be in flight.
func (c *Client) Leave() {
	g := c.gate
	g.mu.Lock()
	i := slices.Index(g.clients, c)
	g.clients = slices.Delete(g.clients, i, i+1)
	g.mu.Unlock()
	gates.mu.Lock()
	defer gates.mu.Unlock()
	if g.users--; g.users == 0 {
		delete(gates.of, g.key)
	}
}

// TryEnter counts a write of whole blocks until Exit. It returns false, and counts
// nothing, if the gate is closed.
func (c *Client) TryEnter() bool {
	c.writes.Add(1)
	if !c.gate.closed.Load() {
		return true
	}
	c.Exit()
	return false
}

// Enter is TryEnter, but waits at a closed gate.
func (c *Client) Enter() {
	if c.TryEnter() {
		return
	}
	c.gate.alone.Lock() // while held, the gate cannot be closed
	c.writes.Add(1)
	c.gate.alone.Unlock()
}

// Exit ends a write that Enter or TryEnter counted.
func (c *Client) Exit() {
	if c.writes.Add(-1) == 0 && c.gate.closed.Load() {
		c.gate.mu.Lock()
		c.gate.idle.Broadcast()
		c.gate.mu.Unlock()
	}
}

// Close keeps all other writes to the device out until Open, and returns once none is in
// flight. The caller must not have entered.
func (c *Client) Close() {
	g := c.gate
	g.alone.Lock()
	g.closed.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	for slices.ContainsFunc(g.clients, func(c *Client) bool { return c.writes.Load() > 0 }) {
		g.idle.Wait()
	}
}

// Open undoes Close.
func (c *Client) Open() {
	c.gate.closed.Store(false)
	c.gate.alone.Unlock()
}
