package thin

import (
	"strings"
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

// Flushes and FUA writes go through the owner only while something of the
// volume is not committed.
func TestFlushAndFUAOfACommittedVolumeAreInline(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 8, 1)
	r.Want(d, 0, 8, 0, 1)
	r.Gate("d").Shut()
	x := r.send(d, blk.Write, blk.FUA, 0, 8, 2)
	y := r.send(d, blk.Flush, 0, 0, 0, 0)
	r.held("d")
	r.Sim.Run()
	r.held("d", "flush 0+0") // the commit for both
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	r.Done(y, blk.OK)
	r.Gate("d").Shut()
	x = r.send(d, blk.Write, blk.FUA, 0, 8, 3)
	r.held("d", "write 0+8 fua")
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	r.Gate("d").Shut()
	y = &ioT{}
	y.Op, y.End = blk.Flush, func(*blk.Bio) { y.Ends++ }
	d.Submit(&y.Bio)
	r.held("d", "flush 0+0")
	r.Gate("d").Open()
	r.Done(y, blk.OK)
	r.Write(d, bs, 8, 1)
	r.Gate("d").Shut()
	x = r.send(d, blk.Write, blk.FUA, 0, 8, 4)
	r.held("d")
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
}

func TestFlushAfterADiscardCommits(t *testing.T) {
	r := newRig(t)
	r.start(64, "no_discard_passdown")
	d := r.thin(0, 64)
	r.Write(d, 0, bs, 1)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Do(d, blk.Discard, 0, bs, 0, blk.OK)
	r.Gate("m").Forget()
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	if len(r.Gate("m").Submitted()) == 0 {
		t.Error("nothing was committed")
	}
}

func TestEmptyWritesTakeNoBlock(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	for _, f := range []blk.Flags{0, blk.FUA, blk.Preflush} {
		r.Done(r.Submit(d, blk.Write, f, 5*bs, 0, 1), blk.OK)
	}
	r.usage(0)
}

// A message flushes the data once, if everything was committed before. If not, it commits that first, so that a message that
// fails takes nothing else back.
func TestMessageCommitsWhatIsBeforeIt(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	flushes := func(text string) int {
		r.Gate("d").Forget()
		r.msg("%s", text)
		return len(r.Gate("d").Submitted())
	}
	r.Write(d, 0, 8, 1)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	if n := flushes("create_thin 1"); n != 1 {
		t.Errorf("%d flushes, and everything was committed", n)
	}
	r.Do(d, blk.Discard, 0, bs, 0, blk.OK)
	if n := flushes("create_thin 2"); n < 2 {
		t.Errorf("%d flushes, and a discard was not committed", n)
	}
	r.Write(d, 0, 8, 2)
	var err error
	r.failOnce("m", blk.Write, func() { // that of the commit before it
		r.Sim.Go("message", func() { _, err = r.pool.Message(0, "create_thin 0") })
		r.Sim.Run()
	})
	if err == nil || !strings.Contains(r.info(r.pool)[4], "ro") {
		t.Errorf("%v; a write was not committed before the message, which changes nothing: %v", err, r.info(r.pool))
	}
}
