//go:build linux

package vhost

import "udm/blk"

// commit keeps answers of writes until these outlive this process: the guest does not learn
// that the server was killed, and would miss an answered write for ever. On most devices
// they do when they end. Others keep metadata in memory until a flush ([export.Export.NeedsFlush]);
// there one flush is the commit of all writes that have ended when it begins.
//
//	written ─ no commit is needed ───────────────► answered
//	   └───── a flush begins ─► covered ─ it ends ─► answered
type commit struct {
	flush   job
	busy    bool // the flush is in progress
	written []*job
	covered []*job
}

// answerWrites answers the writes of a round, or begins their commit.
func (w *worker) answerWrites() {
	c := &w.commit
	if len(c.written) == 0 || c.busy {
		return
	}
	if w.dead || !w.ring.session.export.NeedsFlush() {
		w.settleAll(&c.written, statusOK)
		return
	}
	c.covered, c.written, c.busy = c.written, c.covered[:0], true
	b := &c.flush.bio
	b.Reset()
	b.Op = blk.Flush
	w.issue(&c.flush)
}

// committed answers the writes that the flush has covered.
func (w *worker) committed() {
	w.commit.busy = false
	w.settleAll(&w.commit.covered, w.outcome(&w.commit.flush))
}

func (w *worker) settleAll(jobs *[]*job, status byte) {
	for _, j := range *jobs {
		w.settle(j, status)
	}
	clear(*jobs)
	*jobs = (*jobs)[:0]
}
