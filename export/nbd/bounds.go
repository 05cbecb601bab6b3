package nbd

// Limits of one connection.
const (
	maxRequests = 512      // requests under way
	maxMemory   = 64 << 20 // bytes of slabs, beyond the two that the reader cuts
	batchBytes  = 256 << 10
	batchLen    = 128
)

// The reader takes requests and slabs here, and waits here when the connection
// has as many as it may. Senders give them back: see freeLocked.

// unref drops a reference of the reader's.
func (c *conn) unref(s *slab) {
	c.mu.Lock()
	c.dropLocked(s)
	c.mu.Unlock()
}

// takeSlab returns a slab of at least n bytes, waiting until the connection may
// have that much.
func (c *conn) takeSlab(n int) *slab {
	c.waitFor(func() bool { return c.held == 0 || c.held+n <= maxMemory })
	s := c.srv.memory.take(n)
	c.mu.Lock()
	c.held += len(s.buf)
	c.mu.Unlock()
	return s
}

// take returns a free request, waiting until there are less than maxRequests.
func (c *conn) take() *request {
	if c.spare == nil {
		c.refill()
	}
	r := c.spare
	c.spare, r.next = r.next, nil
	c.taken++
	return r
}

func (c *conn) refill() {
	c.waitFor(func() bool { return c.recycleLocked() || c.taken-c.ended < maxRequests })
	if c.spare == nil {
		c.spare = &request{c: c}
	}
}

// recycleLocked hands the free requests to the reader, if it has none left,
// and reports whether it has some now. Called by the reader.
func (c *conn) recycleLocked() bool {
	if c.spare == nil {
		c.spare, c.free = c.free, nil
	}
	return c.spare != nil
}

// waitFor waits until ok, called with mu held, is true. The replies that the
// reader holds back are sent first: they may be what it waits for.
func (c *conn) waitFor(ok func() bool) {
	c.mu.Lock()
	good := ok()
	c.mu.Unlock()
	if good {
		return
	}
	c.flush()
	c.mu.Lock()
	c.waiting = true
	for !ok() {
		c.changed.Wait()
	}
	c.waiting = false
	c.mu.Unlock()
}

// waitIdle waits until every request is answered.
func (c *conn) waitIdle() {
	c.waitFor(func() bool { return c.ended == c.taken && !c.sending })
}
