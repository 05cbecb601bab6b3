package kcopyd

import "udm/internal/list"

type jobList = list.List[Job, *Job]

// borrowed is the number of jobs that one caller finishes on its own stack before
// the queue takes over, so that the caller is not delayed too long.
const borrowed = 128

// finish queues j for its Done.
func (c *Client) finish(j *Job) {
	if j.AtOnce {
		c.call(j)
		return
	}
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
	c.running = true // not running implies an empty list
	c.mu.Unlock()
	c.call(j)
	c.callDone(borrowed)
}

func (c *Client) runDone() { c.callDone(1 << 30) }

// callDone calls the Done of finished jobs until none is left. After about limit of
// them it leaves the rest to the work. The caller has set running.
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
		c.call(j)
		n++
	}
	return n
}

// putBack returns js to the list for the work.
func (c *Client) putBack(js jobList) {
	c.mu.Lock()
	js.Append(&c.done)
	c.done = js
	c.mu.Unlock()
	c.queue.Queue(c.work)
}

// call calls Done, which may start j again, and counts one job less.
func (c *Client) call(j *Job) {
	sh := j.shard
	j.Done(j)
	sh.End()
	if c.closing.Load() {
		c.idle.Wake()
	}
}
