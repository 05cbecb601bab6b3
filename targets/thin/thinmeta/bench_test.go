package thinmeta_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"udm/blk/memdev"
	"udm/env"
	"udm/targets/thin/thinmeta"
)

// scattered is a volume of n blocks whose data blocks are in no order, in a pool
// that has room for as many snapshots.
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

// BenchmarkDelete deletes volumes of 200,000 mappings whose data blocks are in no
// order.
func BenchmarkDelete(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		m, th := scattered(b, 200000)
		th.Close()
		b.StartTimer()
		ok(b, m.DeleteThin(1))
	}
}
