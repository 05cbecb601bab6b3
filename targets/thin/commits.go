package thin

import (
	"sync/atomic"
	"time"

	"udm/dm"
	"udm/env"
)

// commits counts the commits of a pool. One at a time is made.
type commits struct {
	made          atomic.Uint64
	time, longest atomic.Int64 // nanoseconds
}

// count makes a commit, and counts it if it succeeds.
func (c *commits) count(e env.Env, commit func() error) error {
	began := e.Now()
	if err := commit(); err != nil {
		return err
	}
	took := int64(e.Now() - began)
	c.made.Add(1)
	c.time.Add(took)
	c.longest.Store(max(c.longest.Load(), took))
	return nil
}

// commitMetadata makes all changes durable.
func (p *pool) commitMetadata() error { return p.published.commits.count(p.env, p.md.Commit) }

// Commits are those of the pool since it was opened.
func (pt *poolTarget) Commits() dm.Commits {
	c := &pt.pool.published.commits
	return dm.Commits{Count: c.made.Load(), Time: time.Duration(c.time.Load()), Longest: time.Duration(c.longest.Load())}
}
