package snapshot

import (
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

// FuzzStore opens a damaged store: it is refused, or Invalid, or works without a
// panic and without touching what lies beyond its devices.
func FuzzStore(f *testing.F) {
	head := make([]byte, 16)
	header{true, 1, 1}.marshal(head)
	entries := func(pairs ...uint64) []byte {
		p := make([]byte, 8*len(pairs))
		for i := 0; i+1 < len(pairs); i += 2 {
			putEntry(p, uint64(i/2), pairs[i], pairs[i+1])
		}
		return p
	}
	f.Add(head, entries(1, 2, 2, 3), []byte{})
	f.Add(head, entries(1, 2, 1, 3), []byte{})
	f.Add(head, entries(1, 34), []byte{})
	f.Add(head, entries(1, 1<<63, 3, 1<<20), []byte{})
	f.Add(head, entries(1<<62, 3), []byte{})
	f.Add([]byte("SnAp\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"), []byte{}, []byte{})
	f.Add([]byte("SnAp\x01\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00"), []byte{}, []byte{})
	f.Add([]byte("SnAp\x01\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00"), []byte{}, []byte{})
	f.Add([]byte("nope"), []byte{}, []byte{})
	full := make([]uint64, 64)
	for i := range full {
		full[i] = uint64(2 + i/2)
	}
	f.Add(head, entries(full...), entries(40, 35))
	f.Fuzz(func(t *testing.T, head, area0, area1 []byte) {
		e := env.NewStepped()
		o, c := memdev.New(128), memdev.New(256)
		for at, p := range map[uint64][]byte{0: head, 1: area0, 34: area1} {
			buf := make([]byte, 512)
			copy(buf, p)
			if err := blk.WriteSectors(e, c, buf, at, 0); err != nil {
				t.Fatal(err)
			}
		}
		for _, typ := range []string{"snapshot", "snapshot-merge"} {
			tryStore(t, e, o, c.Clone(), typ)
		}
	})
}

func tryStore(t *testing.T, e *env.Sim, o, c *memdev.Device, typ string) {
	ctl := dm.NewControl(e, disks{"O": strict{t, o}, "C": strict{t, c}}, Types()...)
	r := &rig{TB: t, e: e, c: ctl}
	if err := r.load("s", 128, typ+" O C P 1"); err == nil {
		r.ok(r.resume("s"))
		p := make([]byte, 512)
		for s := uint64(0); s < 128; s++ {
			_ = blk.ReadSectors(e, r.dev("s"), p, s)
			_ = blk.WriteSectors(e, r.dev("s"), p, s, 0)
		}
		r.run()
		if r.info("s") == "" {
			t.Error("no status")
		}
	}
	if err := ctl.Close(); err != nil {
		t.Error(err)
	}
}

// strict fails the test on a bio out of range.
type strict struct {
	t *testing.T
	blk.Device
}

func (d strict) Submit(b *blk.Bio) {
	if size := d.Limits().Size; b.Op != blk.Flush && (b.Sector >= size || b.Sectors > size-b.Sector) {
		d.t.Errorf("%v is out of range", b)
	}
	d.Device.Submit(b)
}

// FuzzTable compares the table of exceptions with a map.
func FuzzTable(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3})
	f.Fuzz(func(t *testing.T, ops []byte) {
		tab, want := newTable(0), map[uint64]uint64{}
		next := uint64(0)
		for i := 0; i+1 < len(ops); i += 2 {
			chunk := uint64(ops[i+1]) | uint64(ops[i]&3)<<8
			if ops[i]&4 != 0 {
				chunk <<= 20
			}
			_, had := want[chunk]
			if ops[i]&8 != 0 {
				if tab.remove(chunk) != had {
					t.Fatalf("remove %d", chunk)
				}
				delete(want, chunk)
				continue
			}
			next += uint64(1 + ops[i]>>7)
			if tab.insert(chunk, next) == had {
				t.Fatalf("insert %d", chunk)
			}
			if !had {
				want[chunk] = next
			}
		}
		n := 0
		tab.all(func(c, w uint64) {
			n++
			if want[c] != w {
				t.Fatalf("chunk %d at %d, want %d", c, w, want[c])
			}
		})
		if n != len(want) {
			t.Fatalf("%d exceptions, want %d", n, len(want))
		}
	})
}
