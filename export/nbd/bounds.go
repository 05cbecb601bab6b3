package nbd

// Limits of one connection.
const (
	maxRequests = 512       // requests in flight
	maxMemory   = 64 << 20  // bytes of slabs, beyond the two that the reader allocates from
	batchBytes  = 128 << 10 // fits into a socket, so that the client reads while the next ones are made
	batchLen    = 128
)

// The reader takes requests and slabs here, and waits here while the connection
// is at its limits. Senders return them: see freeLocked.

// unref drops one of the reader's references.
func (c *conn) unref(s *slab) {
	c.mu.Lock()
	c.dropLocked(s)
	c.mu.Unlock()
}

// takeSlab waits until the connection may use n more bytes and returns a slab of
// at least n bytes.
func (c *conn) takeSlab(n int) *slab {
	c.waitFor(func() bool { return c.held == 0 || c.held+n <= maxMemory })
	s := c.srv.memory.take(n)
	c.mu.Lock()
	c.held += len(s.buf)
	c.mu.Unlock()
	return s
}

// take waits until fewer than maxRequests are in flight and returns a free
// request.
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

// recycleLocked moves the free requests to the reader's list if that is empty,
// and reports whether the list has any now. Only the reader calls it.
func (c *conn) recycleLocked() bool {
	if c.spare == nil {
		c.spare, c.free = c.free, nil
	}
	return c.spare != nil
}

// waitFor waits until ok, called with mu held, returns true. It first sends the
// replies that the reader holds back, since it may be waiting for them.
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
