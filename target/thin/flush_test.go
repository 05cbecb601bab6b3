package thin

import (
	"testing"

	"udm/blk"
)

// A flush needs no block and waits for none.
func TestFlushInEveryMode(t *testing.T) {
	r, d := full(t)
	other := r.thin(1, 64)
	x := r.Submit(d, blk.Write, 0, 1024, 8, 1)
	r.mode("out_of_data_space", "queue_if_no_space")
	r.Do(other, blk.Flush, 0, 0, 0, blk.OK)
	r.Held(x)
	r.Swap(r.pool, poolTable(8, "read_only"))
	r.Done(x, blk.IOErr)
	r.Do(other, blk.Flush, 0, 0, 0, blk.OK)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
}

// NoWait bios are served from the cache or not at all.
func TestNoWait(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Done(r.Submit(d, blk.Write, blk.NoWait, 0, 8, 1), blk.WouldBlock)
	r.Write(d, 0, 8, 1)
	r.Want(d, 0, 8, 0, 1)
	r.Done(r.Submit(d, blk.Write, blk.NoWait, 0, 8, 2), blk.OK)
	r.Want(d, 0, 8, 0, 2)
	r.Done(r.Submit(d, blk.Read, blk.NoWait, 128, 8, 2), blk.WouldBlock)
	r.Done(r.Submit(d, blk.Write, blk.NoWait|blk.FUA, 0, 8, 2), blk.WouldBlock)
}
