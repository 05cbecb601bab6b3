package kcopyd

import "udm/internal/list"

type jobList = list.List[Job, *Job]

// borrowed is how many jobs one caller finishes on its own stack before the
// queue takes over: the stack belongs to somebody who wants to go on.
const borrowed = 128

// finish lets j.Done be called in its turn.
func (c *Client) finish(j *Job) {
	c.mu.Lock()
	if c.running || !c.inline {
		c.done.Push(j)
		start := !c.running
		c.running = true
		c.mu.Unlock()
		if start {
			c.queue.Queue(c.work)
		}
		return
	}
	c.running = true // so the list is empty
	c.mu.Unlock()
	j.Done(j)
	c.forget()
	c.callDone(borrowed)
}

func (c *Client) runDone() { c.callDone(1 << 30) }

// callDone calls the Done of finished jobs until none is left, or of about
// limit of them and leaves the others to the work. The caller has set running.
func (c *Client) callDone(limit int) {
	for {
		c.mu.Lock()
		js := c.done.Take()
		if js.Empty() {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if limit <= 0 {
			c.putBack(js)
			return
		}
		limit -= c.callAll(js)
	}
}

// callAll calls Done for each of js and counts them.
func (c *Client) callAll(js jobList) (n int) {
	for j := js.Pop(); j != nil; j = js.Pop() {
		j.Done(j)
		n++
		c.forget()
	}
	return n
}

// putBack leaves js to the work.
func (c *Client) putBack(js jobList) {
	c.mu.Lock()
	js.Append(&c.done)
	c.done = js
	c.mu.Unlock()
	c.queue.Queue(c.work)
}

// forget counts one job less.
func (c *Client) forget() {
	if c.jobs.Add(-1) == 0 && c.closing.Load() {
		c.idle.Wake()
	}
}
