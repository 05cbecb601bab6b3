package thinmeta_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"udm/blk/memdev"
	"udm/env"
	"udm/targets/thin/thinmeta"
)

// scattered is a volume of n blocks whose data blocks are in random order, in a pool
// with room for the snapshots.
func scattered(b testing.TB, n uint64) (*thinmeta.Metadata, *thinmeta.Thin) {
	m := must(thinmeta.Open(env.Real(), memdev.New(1<<16*8), thinmeta.Options{DataBlockSize: 128, Format: true}))
	ok(b, m.ResizeData(1<<25))
	ok(b, m.CreateThin(1))
	th := must(m.OpenThin(1))
	rng := rand.New(rand.NewPCG(1, 1))
	for _, k := range rng.Perm(int(n)) {
		ok(b, th.Insert(uint64(k), must(m.AllocDataBlock())))
	}
	ok(b, m.Commit())
	return m, th
}

// BenchmarkBreakSharing maps one block of each of 64 leaves that are shared with a
// snapshot, whose data blocks have up to so many references.
func BenchmarkBreakSharing(b *testing.B) {
	const n, leaves = uint64(1 << 17), 64
	for _, refs := range []int{1, 4} {
		b.Run(fmt.Sprint(refs, "references"), func(b *testing.B) {
			m, th := scattered(b, n)
			for range refs - 1 {
				ok(b, m.IncData(0, n))
			}
			ok(b, m.Commit())
			for i := uint32(2); b.Loop(); i++ {
				b.StopTimer()
				ok(b, m.CreateSnap(i, 1))
				ok(b, m.Commit())
				b.StartTimer()
				for k := range uint64(leaves) {
					ok(b, th.Insert(k*(n/leaves), must(m.AllocDataBlock())))
				}
				b.StopTimer()
				ok(b, m.DeleteThin(i))
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/leaves, "ns/leaf")
		})
	}
}

// cpuTime is the processor time that this thread has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDelete deletes volumes of 400,000 mappings whose data blocks are in random
// order, at once and in portions, and reports the processor time of the longest call.
// A shared volume has one leaf of its own below each parent of leaves and shares the
// others with a snapshot.
func BenchmarkDelete(b *testing.B) {
	for _, shared := range []bool{false, true} {
		for name, atOnce := range map[string]uint64{"atonce": math.MaxUint64, "portions": 0} {
			b.Run(fmt.Sprintf("shared=%v/%s", shared, name), func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				var total, longest time.Duration
				timed := func(fn func() error) {
					start := cpuTime()
					ok(b, fn())
					total, longest = total+cpuTime()-start, max(longest, cpuTime()-start)
				}
				for b.Loop() {
					m := toDelete(b, shared)
					timed(func() error { return m.DetachThin(1, atOnce) })
					for must(m.Detached()) {
						timed(func() error { return m.DeleteSome(1024) })
					}
				}
				b.ReportMetric(float64(total.Microseconds())/float64(b.N), "cpu-µs/op")
				b.ReportMetric(float64(longest.Microseconds()), "longest-cpu-µs")
			})
		}
	}
}

// toDelete is metadata whose device 1 is to be deleted.
func toDelete(b *testing.B, shared bool) *thinmeta.Metadata {
	const n = 400000
	m, th := scattered(b, n)
	defer th.Close()
	if shared {
		ok(b, m.CreateSnap(2, 1))
		for k := uint64(0); k < n; k += 10000 {
			ok(b, th.Insert(k, must(m.AllocDataBlock())))
		}
	}
	ok(b, m.Commit())
	return m
}
