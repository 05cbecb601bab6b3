package ublk

import "udm/blk"

// keeper keeps the answers of writes until these outlive this process: the disk's users do
// not learn that the server was killed, and would miss an answered write for ever. On most
// devices they do when they end. Others keep metadata in memory until a flush
// ([export.Export.NeedsFlush]); there one flush serves all writes that have ended when it
// begins.
type keeper struct {
	flush   request
	busy    bool       // the flush is in progress
	written []*request // ended writes
	covered []*request // those that the flush covers
}

// answerWrites answers the writes that have ended, or begins the flush that they need.
func (q *queue) answerWrites() {
	k := &q.keeper
	if len(k.written) == 0 || k.busy {
		return
	}
	if !q.server.export.NeedsFlush() {
		q.answerAll(&k.written, blk.OK)
		return
	}
	k.covered, k.written, k.busy = k.written, k.covered[:0], true
	k.flush.bio.Reset()
	k.flush.bio.Op = blk.Flush
	q.issue(&k.flush)
}

// kept answers the writes that the flush has covered.
func (q *queue) kept() {
	q.keeper.busy = false
	q.answerAll(&q.keeper.covered, q.keeper.flush.bio.Status())
}

func (q *queue) answerAll(list *[]*request, st blk.Status) {
	for _, r := range *list {
		q.answer(r, st)
	}
	clear(*list)
	*list = (*list)[:0]
}
