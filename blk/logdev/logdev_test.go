package logdev_test

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/logdev"
	"udm/blk/memdev"
	"udm/env"
)

func TestLinesAreInTheOrderOfEvents(t *testing.T) {
	e := env.NewStepped()
	log := &logdev.Log{}
	g := blktest.NewGate(e, memdev.New(64))
	d, meta := logdev.New(g, log, ""), logdev.New(memdev.New(8), log, "meta")
	for _, b := range []*blk.Bio{{Op: blk.WriteZeroes, Sector: 8, Sectors: 8, Flags: blk.FUA}, {Op: blk.Flush}} {
		b.End = func(*blk.Bio) {}
		d.Submit(b)
	}
	log.Add("# power comes back")
	if err := blk.DiscardSectors(e, meta, 0, 4); err != nil {
		t.Fatal(err)
	}
	g.Fail(1, blk.IOErr)
	g.Release(0)
	want := `submit write-zeroes 8+8 fua
submit flush 0+0
# power comes back
meta: submit discard 0+4
meta: end discard 0+4 ok
end flush 0+0 I/O error
end write-zeroes 8+8 fua ok
`
	if n := len(log.Lines()); n != 7 {
		t.Errorf("%d lines", n)
	}
	if got := log.Take(); got != want {
		t.Errorf("got\n%s", got)
	}
	if log.Take() != "" {
		t.Error("Take does not empty the log")
	}
	if d.Limits() != g.Limits() || d.String() != g.String() || d.Close() != nil {
		t.Error("not passed on")
	}
}

func BenchmarkWrite4K(b *testing.B) {
	log := &logdev.Log{}
	d, p := logdev.New(memdev.New(64), log, ""), make([]byte, 4096)
	bio := &blk.Bio{End: func(*blk.Bio) {}}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		bio.Reset()
		bio.Op, bio.End = blk.Write, func(*blk.Bio) {}
		bio.SetData(p)
		d.Submit(bio)
		if n%1000 == 0 {
			log.Take()
		}
	}
}
