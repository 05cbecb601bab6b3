//go:build linux

package fuse

import (
	"testing"

	"udm/blk/memdev"
)

// One request after the other: what a request costs.
func benchmark(b *testing.B, n int, write bool) {
	path := one(b, memdev.New(sectors))
	f := open(b, path)
	p := make([]byte, n)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for i := range b.N {
		off := int64(i*n) % (sectors*512 - int64(n))
		var err error
		if write {
			_, err = f.WriteAt(p, off)
		} else {
			_, err = f.ReadAt(p, off)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead4K(b *testing.B)  { benchmark(b, 4<<10, false) }
func BenchmarkWrite4K(b *testing.B) { benchmark(b, 4<<10, true) }
func BenchmarkRead1M(b *testing.B)  { benchmark(b, 1<<20, false) }
func BenchmarkWrite1M(b *testing.B) { benchmark(b, 1<<20, true) }
