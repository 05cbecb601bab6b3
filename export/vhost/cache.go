//go:build linux

package vhost

import "sync/atomic"

// cacheMode says whether the writes of a guest must be durable when they are answered
// (virtio 1.2, 5.2.6.2): if the guest cannot flush, or has chosen write-through. What it has
// chosen is kept beside the requests in flight, because a front end that connects to the
// next server does not choose again.
type cacheMode struct {
	features uint64      // accepted
	through  atomic.Bool // chosen
	chosen   atomic.Bool // through is the guest's choice
	durable  atomic.Bool // the mode in effect
}

func (c *cacheMode) writeback() bool { return !c.through.Load() }

// accept notes the features that the front end has accepted.
func (c *cacheMode) accept(features uint64) {
	c.features = features
	c.update()
}

func (c *cacheMode) choose(writeback bool) {
	c.through.Store(!writeback)
	c.chosen.Store(true)
	c.update()
}

func (c *cacheMode) update() {
	c.durable.Store(c.features&featFlush == 0 || c.features&featWriteback != 0 && c.through.Load())
}

// unknown is called when a ring goes on that the guest has used with a server before this
// one. If nobody has said what it had chosen, it is write-through, which is never wrong.
func (c *cacheMode) unknown(features uint64, x *inflight) {
	if features&featWriteback != 0 && !c.chosen.Load() {
		c.through.Store(true)
		c.durable.Store(true)
		x.setCache(false)
	}
}

// chooseCache sets the cache mode, also for the server after this one.
func (s *session) chooseCache(writeback bool) {
	s.cache.choose(writeback)
	s.inflight.setCache(writeback)
}
