package blk_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

func TestFileAtAnyOffset(t *testing.T) {
	const size = 1 << 18
	d := memdev.New(size/512, memdev.Tune(func(l *blk.Limits) { l.LogicalBlock = 4096 }))
	f := blk.NewFile(env.Real(), d)
	want := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		off, n := r.IntN(size), 1+r.IntN(20000)
		n = min(n, size-off)
		if i%2 == 0 {
			p := bytes.Repeat([]byte{byte(i)}, n)
			copy(want[off:], p)
			if m, err := f.WriteAt(p, int64(off)); m != n || err != nil {
				t.Fatalf("write %d+%d: %d, %v", off, n, m, err)
			}
			continue
		}
		p := make([]byte, n)
		if m, err := f.ReadAt(p, int64(off)); m != n || err != nil || !bytes.Equal(p, want[off:off+n]) {
			t.Fatalf("read %d+%d: %d, %v, equal %v", off, n, m, err, bytes.Equal(p, want[off:off+n]))
		}
	}
	if n, err := f.ReadAt(make([]byte, 10), size-4); n != 4 || err != io.EOF {
		t.Fatalf("read over the end: %d, %v", n, err)
	}
	if n, err := f.WriteAt(make([]byte, 10), size-4); n != 4 || err != blk.NoSpace {
		t.Fatalf("write over the end: %d, %v", n, err)
	}
	if _, err := f.ReadAt(nil, -1); err == nil {
		t.Fatal("a negative offset is accepted")
	}
}
