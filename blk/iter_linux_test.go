package blk

import (
	"syscall"
	"testing"
)

// One buffer of more than 4 GiB, of which nothing is touched, is cut and put
// together again at its far end.
func TestCuttingBeyond4GiB(t *testing.T) {
	const size, at = 5 << 30, 4<<30 + 4096
	p, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(p)
	var b, c Bio
	b.SetData(p)
	whole := b.Position()
	begins := func(b *Bio, want int) {
		t.Helper()
		if got, ok := b.Contiguous(); !ok || &got[0] != &p[want] || b.DataBytes() != uint64(size-want) {
			t.Fatalf("the data does not begin at byte %d", want)
		}
	}
	b.Advance(at / SectorSize)
	begins(&b, at)
	c.CloneFrom(&b)
	begins(&c, at)
	far := b.Position()
	b.Rewind(at / SectorSize)
	begins(&b, 0)
	b.Seek(far, (size-at)/SectorSize)
	begins(&b, at)
	b.Seek(whole, size/SectorSize)
	begins(&b, 0)
	b.SetBufs([][]byte{p, p[:SectorSize]}, size/SectorSize+1)
	b.Advance(size / SectorSize)
	b.Rewind((size - at) / SectorSize)
	if b.Sectors != (size-at)/SectorSize+1 || b.Position().done != at {
		t.Fatalf("%+v", b.Position())
	}
}
