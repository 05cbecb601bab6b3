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
// writes, each block once, to a fresh snapshot or to its origin, chunk 4 KiB, on
// devices that forget.

const benchBlocks = 1 << 18 // 1 GiB

// cpuTime is the processor time that the process has used. On a busy machine it
// says more than the wall clock.
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
			cpu := -cpuTime()
			for i := range b.N {
				bio.Rearm()
				bio.Sector, bio.Sectors = uint64(uint32(i)*2654435761>>16)*8, 8
				d.Submit(&bio)
			}
			b.ReportMetric(float64(cpu+cpuTime())/float64(b.N), "cpu-ns/op")
		})
	}
	for _, workers := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("parallel-read/workers=%d", workers), func(b *testing.B) {
			d := mapped(b, n)
			b.ResetTimer()
			cpu := -cpuTime()
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
			b.ReportMetric(float64(cpu+cpuTime())/float64(b.N), "cpu-ns/op")
		})
	}
}

func BenchmarkCopy4K(b *testing.B) {
	src, dst := make([]byte, 4096), make([]byte, 4096)
	cpu := -cpuTime()
	for b.Loop() {
		copy(dst, src)
	}
	b.ReportMetric(float64(cpu+cpuTime())/float64(b.N), "cpu-ns/op")
}

// The experiment of the change "skip reading origin when overwriting complete
// chunk": sequential writes to a snapshot, whole chunks against halves.
func BenchmarkSequential(b *testing.B) {
	for _, kind := range []string{"N", "P"} {
		for _, chunk := range []uint64{8, 128} {
			for _, part := range []uint64{1, 2} {
				b.Run(fmt.Sprintf("%s/chunk=%d/parts=%d", kind, chunk, part), func(b *testing.B) {
					benchSequential(b, kind, chunk, chunk/part)
				})
			}
		}
	}
}

const seqSize = 64 << 20 / 512

func benchSequential(b *testing.B, kind string, chunk, step uint64) {
	r := newRig(b, env.Real(), disks{"O": filled(seqSize), "C": filled(2 * seqSize)})
	var cpu time.Duration
	buf := make([]byte, step*512)
	bio := &blk.Bio{End: func(*blk.Bio) {}}
	b.SetBytes(seqSize * 512)
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		_ = blk.WriteSectors(r.e, r.disks["C"], make([]byte, 512), 0, 0)
		s := r.device("s", seqSize, fmt.Sprintf("snapshot O C %s %d", kind, chunk))
		b.StartTimer()
		cpu -= cpuTime()
		for at := uint64(0); at < seqSize; at += step {
			bio.Rearm()
			bio.Op, bio.Sector = blk.Write, at
			bio.SetData(buf)
			s.Submit(bio)
		}
		cpu += cpuTime()
		b.StopTimer()
		r.remove("s")
		b.StartTimer()
	}
	b.ReportMetric(float64(seqSize)*512*float64(b.N)/1e6/cpu.Seconds(), "MB/cpu-s")
}

// filled is a memory device all of whose pages are allocated.
func filled(size uint64) *memdev.Device {
	d := memdev.New(size)
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = 1
	}
	for s := uint64(0); s < size; s += 2048 {
		_ = blk.WriteSectors(env.Real(), d, p, s, 0)
	}
	return d
}

// The cost of breaking the sharing of an origin, and of merging, compared with a
// plain copy of the same bytes from one device to the other.
func BenchmarkBandwidth(b *testing.B) {
	b.Run("copy", func(b *testing.B) {
		src, dst := filled(seqSize), filled(seqSize)
		buf := make([]byte, 512<<10)
		cpu := -cpuTime()
		for b.Loop() {
			for s := uint64(0); s < seqSize; s += 1024 {
				_ = blk.ReadSectors(env.Real(), src, buf, s)
				_ = blk.WriteSectors(env.Real(), dst, buf, s, 0)
			}
		}
		cpu += cpuTime()
		b.ReportMetric(float64(seqSize)*512*float64(b.N)/1e6/cpu.Seconds(), "MB/cpu-s")
	})
	for _, chunk := range []uint64{8, 32, 128, 1024} {
		b.Run(fmt.Sprintf("break/chunk=%d", chunk), func(b *testing.B) { benchBreak(b, chunk) })
		b.Run(fmt.Sprintf("merge/chunk=%d", chunk), func(b *testing.B) { benchMerge(b, chunk) })
	}
}

// benchBreak writes one sector to each chunk of the origin.
func benchBreak(b *testing.B, chunk uint64) {
	r := newRig(b, env.Real(), disks{"O": filled(seqSize), "C": filled(2 * seqSize)})
	bio := &blk.Bio{End: func(*blk.Bio) {}}
	buf := make([]byte, 512)
	var cpu time.Duration
	for b.Loop() {
		o := r.device("o", seqSize, "snapshot-origin O")
		_ = blk.WriteSectors(r.e, r.disks["C"], buf, 0, 0)
		r.device("s", seqSize, fmt.Sprintf("snapshot O C P %d", chunk))
		cpu -= cpuTime()
		for at := uint64(0); at < seqSize; at += chunk {
			bio.Rearm()
			bio.Op, bio.Sector = blk.Write, at
			bio.SetData(buf)
			o.Submit(bio)
		}
		cpu += cpuTime()
		r.remove("s")
		r.remove("o")
	}
	b.ReportMetric(float64(seqSize)*512*float64(b.N)/1e6/cpu.Seconds(), "MB/cpu-s")
}

func benchMerge(b *testing.B, chunk uint64) {
	r := newRig(b, env.Real(), disks{"O": filled(seqSize), "C": filled(2 * seqSize)})
	buf := make([]byte, chunk*512)
	var cpu time.Duration
	for b.Loop() {
		_ = blk.WriteSectors(r.e, r.disks["C"], make([]byte, 512), 0, 0)
		s := r.device("s", seqSize, fmt.Sprintf("snapshot O C P %d", chunk))
		for at := uint64(0); at < seqSize; at += chunk {
			_ = blk.WriteSectors(r.e, s, buf, at, 0)
		}
		r.suspend("s")
		r.ok(r.load("m", seqSize, fmt.Sprintf("snapshot-merge O C P %d", chunk)))
		cpu -= cpuTime()
		r.ok(r.resume("m"))
		m := r.snap("m").merge
		m.wait.Until(func() bool { return !m.isRunning() })
		cpu += cpuTime()
		r.remove("s")
		r.remove("m")
	}
	b.ReportMetric(float64(seqSize)*512*float64(b.N)/1e6/cpu.Seconds(), "MB/cpu-s")
}
