//go:build unix

package snapshot

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
)

// The experiments of the change "use fine-grained locking scheme": random 4 KiB
// writes, each block once, to a fresh snapshot or to its origin, chunk 4 KiB.

const benchBlocks = 1 << 18 // 1 GiB

// cpuTime is what the process has used of all processors: on a machine that is
// busy with other things it says more than the time on the wall.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func nullRig(b testing.TB) *rig {
	return newRig(b, env.Real(), disks{"O": nulldev.New(benchBlocks * 8), "C": nulldev.New(benchBlocks * 16)})
}

// writeOnce writes every block once in random order, by workers with depth bios
// each, and returns how long it took.
func writeOnce(d blk.Device, workers, depth int) time.Duration {
	order := rand.Perm(benchBlocks)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range workers {
		wg.Go(func() {
			worker(d, order[w*len(order)/workers:(w+1)*len(order)/workers], depth)
		})
	}
	wg.Wait()
	return time.Since(start)
}

// worker keeps depth writes under way.
func worker(d blk.Device, blocks []int, depth int) {
	free := make(chan *blk.Bio, depth)
	buf := make([]byte, 4096)
	for range depth {
		b := &blk.Bio{}
		b.End = func(b *blk.Bio) { free <- b }
		free <- b
	}
	for _, n := range blocks {
		b := <-free
		b.Rearm()
		b.Op, b.Sector = blk.Write, uint64(n)*8
		b.SetData(buf)
		d.Submit(b)
	}
	for range depth {
		<-free
	}
}

func BenchmarkExceptions(b *testing.B) {
	for _, kind := range []string{"N", "P"} {
		for _, what := range []string{"origin", "snapshot"} {
			for _, depth := range []int{1, 32} {
				for _, workers := range []int{1, 2, 4, 8} {
					name := fmt.Sprintf("%s/%s/depth=%d/workers=%d", kind, what, depth, workers)
					b.Run(name, func(b *testing.B) { benchExceptions(b, kind, what, workers, depth) })
				}
			}
		}
	}
}

func benchExceptions(b *testing.B, kind, what string, workers, depth int) {
	r := nullRig(b)
	var took, cpu time.Duration
	for range b.N {
		if kind == "P" {
			r.disks["C"] = memdev.New(benchBlocks * 16)
		}
		o := r.device("o", benchBlocks*8, "snapshot-origin O")
		d := r.device("s", benchBlocks*8, "snapshot O C "+kind+" 8")
		if what == "origin" {
			d = o
		}
		cpu -= cpuTime()
		took += writeOnce(d, workers, depth)
		cpu += cpuTime()
		r.remove("s")
		r.remove("o")
	}
	b.ReportMetric(float64(benchBlocks)*float64(b.N)/took.Seconds(), "writes/s")
	b.ReportMetric(float64(cpu)/float64(benchBlocks*b.N), "cpu-ns/write")
	b.ReportMetric(0, "ns/op")
}

// mapped is a snapshot in which the first n blocks have exceptions.
func mapped(b *testing.B, n int) *dm.Device {
	r := nullRig(b)
	d := r.device("s", benchBlocks*8, "snapshot O C N 8")
	for i, p := range rand.Perm(n) {
		_ = i
		bio := &blk.Bio{Op: blk.Write, Sector: uint64(p) * 8, End: func(*blk.Bio) {}}
		bio.SetData(make([]byte, 512))
		d.Submit(bio)
	}
	return d
}

func BenchmarkMapped(b *testing.B) {
	const n = 65536
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		b.Run(op.String(), func(b *testing.B) {
			d := mapped(b, n)
			var bio blk.Bio
			bio.Op, bio.End = op, func(*blk.Bio) {}
			bio.SetData(make([]byte, 4096))
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				bio.Rearm()
				bio.Sector, bio.Sectors = uint64(uint32(i)*2654435761>>16)*8, 8
				d.Submit(&bio)
			}
		})
	}
	for _, workers := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("parallel-read/workers=%d", workers), func(b *testing.B) {
			d := mapped(b, n)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					var bio blk.Bio
					bio.End = func(*blk.Bio) {}
					bio.SetData(make([]byte, 4096))
					for i := w; i < b.N; i += workers {
						bio.Rearm()
						bio.Sector, bio.Sectors = uint64(uint32(i)*2654435761>>16)*8, 8
						d.Submit(&bio)
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkCopy4K(b *testing.B) {
	src, dst := make([]byte, 4096), make([]byte, 4096)
	for b.Loop() {
		copy(dst, src)
	}
}
