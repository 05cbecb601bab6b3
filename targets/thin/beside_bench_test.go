package thin

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/nulldev"
	"udm/env"
)

// slowFlush takes a while to flush, as disks do.
type slowFlush struct{ blk.Device }

func (d slowFlush) Submit(b *blk.Bio) {
	if b.Op == blk.Flush {
		time.AfterFunc(10*time.Millisecond, func() { d.Device.Submit(b) })
		return
	}
	d.Device.Submit(b)
}

// BenchmarkProvisionBesideCommits maps a new block for each write, one at a time,
// while another volume of the pool writes and flushes all the time, over a data disk
// whose flush takes 10 ms.
func BenchmarkProvisionBesideCommits(b *testing.B) {
	n := uint64(b.N)
	blocks := n + 1<<20
	r := newBench(b, func() blk.Device { return slowFlush{nulldev.New(blocks * bs)} })
	pool := r.device("pool", fmt.Sprintf("0 %d thin-pool m d %d 0 1 skip_block_zeroing", blocks*bs, bs))
	r.msg(pool, "create_thin 0")
	r.msg(pool, "create_thin 1")
	d := r.device("thin", fmt.Sprintf("0 %d thin /dev/mapper/pool 0", n*bs))
	other := r.device("other", fmt.Sprintf("0 %d thin /dev/mapper/pool 1", 1<<19*bs))
	var stop atomic.Bool
	flushes, done := 0, make(chan error)
	go func() {
		var err error
		for p := make([]byte, 4096); err == nil && !stop.Load(); flushes++ {
			err = blk.WriteSectors(env.Real(), other, p, uint64(flushes)%(1<<19)*bs, blk.FUA)
		}
		done <- err
	}()
	took, p := make([]time.Duration, n), make([]byte, 4096)
	b.ResetTimer()
	for i := range n {
		begin := time.Now()
		r.must(blk.WriteSectors(env.Real(), d, p, i*bs, 0))
		took[i] = time.Since(begin)
	}
	b.StopTimer()
	stop.Store(true)
	r.must(<-done)
	slices.Sort(took)
	b.ReportMetric(float64(flushes)/b.Elapsed().Seconds(), "flushes/s")
	b.ReportMetric(float64(took[n*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[n*999/1000].Microseconds()), "p99.9-µs")
}
