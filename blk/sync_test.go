package blk

import (
	"bytes"
	"testing"

	"udm/env"
)

func TestAdvanceAndRewindWalkOddBuffers(t *testing.T) {
	var bufs [][]byte
	var all []byte
	for i, n := range []int{512, 3584, 1024, 100, 412, 1, 4095} {
		p := bytes.Repeat([]byte{byte(i + 1)}, n)
		bufs, all = append(bufs, p), append(all, p...)
	}
	b := &Bio{Op: Write, Sector: 8}
	b.SetBufs(bufs, uint64(len(all))/SectorSize)
	for n := uint64(0); n <= b.Sectors; n++ {
		total := b.Sectors
		b.Advance(n)
		got := make([]byte, b.Bytes())
		b.CopyOut(got)
		if !bytes.Equal(got, all[n*SectorSize:]) {
			t.Fatalf("after Advance(%d) the data is not the rest", n)
		}
		if b.Sector != 8+n || b.DataBytes() != b.Bytes() {
			t.Fatalf("after Advance(%d): %v with %d bytes", n, b, b.DataBytes())
		}
		b.Rewind(n)
		if b.Sectors != total || b.Sector != 8 {
			t.Fatalf("after Rewind(%d): %v", n, b)
		}
	}
}

func TestCompleteWaitsForHolds(t *testing.T) {
	ends := 0
	b := &Bio{End: func(b *Bio) { ends++ }}
	b.Hold()
	b.Hold()
	b.Complete(OK)
	b.Complete(NoSpace)
	if ends != 0 {
		t.Fatal("ended before the last part")
	}
	b.Complete(IOErr)
	if ends != 1 || b.Status() != NoSpace {
		t.Fatalf("ended %d times with %v; the first failure counts", ends, b.Status())
	}
}

type inline struct{ got []*Bio }

func (d *inline) Submit(b *Bio)  { d.got = append(d.got, b); b.Complete(IOErr) }
func (d *inline) Limits() Limits { return DefaultLimits(8) }
func (d *inline) Close() error   { return nil }
func (d *inline) String() string { return "inline" }

func TestDoReportsTheStatus(t *testing.T) {
	for _, e := range []env.Env{env.Real(), env.NewStepped()} {
		if err := FlushDevice(e, &inline{}); err != IOErr {
			t.Fatalf("got %v", err)
		}
	}
}
