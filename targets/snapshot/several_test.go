package snapshot

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

// several is an origin with snapshots of different chunk sizes, named after
// their COW devices D0, D1, ….
func several(t *testing.T, e env.Env, size uint64, kind string, chunks ...uint64) (*rig, *dm.Device, []*dm.Device) {
	r := newGated(t, e, size, 8)
	o := r.device("o", size, "snapshot-origin O")
	var ss []*dm.Device
	for i, c := range chunks {
		n := fmt.Sprintf("D%d", i)
		r.gate(n, memdev.New(2*size+8*c))
		ss = append(ss, r.device(n, size, fmt.Sprintf("snapshot O %s %s %d", n, kind, c)))
	}
	r.forget()
	return r, o, ss
}

func TestOneOriginWriteServesAllSnapshots(t *testing.T) {
	r, o, ss := several(t, stepped(), 256, "N", 8, 16, 8)
	r.shut()
	w := r.write(o, 40, 8, 2)
	// Largest chunk first, but the one that the write waits for is started last.
	r.wantTrace("O", "read 40+8", "read 40+8", "read 32+16")
	r.gates["D0"].Open()
	r.gates["D2"].Open()
	r.release("O", blk.Read, 40)
	r.release("O", blk.Read, 40)
	r.wantWaiting(w)
	r.release("O", blk.Read, 32)
	r.wantWaiting(w)
	r.gates["D1"].Open()
	r.run()
	r.wantTrace("O", "read 40+8", "read 40+8", "read 32+16", "write 40+8")
	r.open()
	r.wantEnd(w, blk.OK)
	for _, s := range ss {
		r.wantData(s, 0, 256, 1)
		r.snap(s.Name()).mustBeIdle(t)
	}
}

// An origin write that has waited for one snapshot waits for the next.
func TestOriginWriteWaitsForOneAfterTheOther(t *testing.T) {
	r, o, ss := several(t, stepped(), 256, "N", 8, 16)
	r.gates["O"].Shut()
	r.gates["D0"].Shut()
	w := r.write(o, 40, 8, 2)
	r.release("O", blk.Read, 32) // the larger one: the write waits for it
	r.wantWaiting(w)
	r.release("O", blk.Read, 40)
	r.wantWaiting(w)
	r.wantTrace("O", "read 40+8", "read 32+16")
	r.release("D0", blk.Write, 0)
	r.wantTrace("O", "read 40+8", "read 32+16", "write 40+8")
	r.open()
	r.wantEnd(w, blk.OK)
	_ = ss
}

func TestOriginWritesAreCutAtTheSmallestChunk(t *testing.T) {
	r, o, ss := several(t, stepped(), 256, "N", 32, 8, 16)
	w := r.write(o, 4, 100, 2)
	r.wantEnd(w, blk.OK)
	var writes []uint64
	for _, q := range r.gates["O"].Submitted() {
		if q.Op == blk.Write {
			writes = append(writes, q.Sectors)
		}
	}
	if len(writes) != 13 || writes[0] != 4 || writes[12] != 8 {
		t.Errorf("pieces %v", writes)
	}
	for _, s := range ss {
		r.wantData(s, 0, 256, 1)
	}
	r.wantData(o, 4, 100, 2)
}

func TestSnapshotsOfDifferentAge(t *testing.T) {
	r := newGated(t, env.Real(), 1024, 8)
	o := r.device("o", 1024, "snapshot-origin O")
	for i := uint64(0); i < 5; i++ {
		n := fmt.Sprintf("D%d", i)
		r.gate(n, memdev.New(4096))
		r.suspend("o")
		r.device(n, 1024, fmt.Sprintf("snapshot O %s P %d", n, 4<<i))
		r.ok(r.resume("o"))
		r.wantEnd(r.write(o, 100, 500, 2+i), blk.OK)
		for j := range i + 1 {
			r.wantData(r.dev(fmt.Sprintf("D%d", j)), 100, 500, 1+j)
		}
	}
}

func TestASnapshotEndsBeforeItsOrigin(t *testing.T) {
	r := newGated(t, stepped(), 100, 512)
	o := r.device("o", 100, "snapshot-origin O")
	s := r.device("s", 50, "snapshot O C N 16")
	r.forget()
	r.wantEnd(r.write(o, 60, 4, 2), blk.OK)
	r.wantTrace("O", "write 60+4")
	r.wantEnd(r.write(o, 49, 1, 2), blk.OK)
	r.wantInfo("s", "16/512 0")
	r.wantData(s, 48, 2, 1)
	r.remove("s")
	// The last chunk reaches beyond the origin: only what is there is copied.
	s = r.device("s", 100, "snapshot O C N 16")
	r.forget()
	r.wantEnd(r.write(s, 97, 1, 3), blk.OK)
	r.wantTrace("O", "read 96+4")
	r.wantTrace("C", "write 0+4", "write 1+1")
}

func TestFullStoreOnAnOriginWrite(t *testing.T) {
	for _, kind := range []string{"P", "PO", "N"} {
		t.Run(kind, func(t *testing.T) {
			r := newGated(t, stepped(), 256, 8)
			o := r.device("o", 256, "snapshot-origin O")
			for _, n := range []string{"D0", "D1"} {
				r.gate(n, memdev.New(24))
				r.device(n, 256, "snapshot O "+n+" "+kind+" 8")
			}
			for i := range uint64(4) {
				r.wantEnd(r.write(o, 8*i, 8, 2), blk.OK)
			}
			r.wantInfo("D0", "Invalid")
			r.wantInfo("D1", "Invalid")
			r.wantEnd(r.read(r.dev("D0"), 0, 1), blk.IOErr)
			r.wantData(o, 0, 32, 2)
		})
	}
}

// Nothing that a snapshot protects is overwritten before the store records that it is
// invalid.
func TestOriginWriteWaitsForTheDrop(t *testing.T) {
	r := newGated(t, stepped(), 256, 16)
	o := r.device("o", 256, "snapshot-origin O")
	r.device("s", 256, "snapshot O C P 8")
	r.forget()
	r.shut()
	a, b := r.write(o, 8, 8, 2), r.write(o, 16, 8, 2)
	r.wantTrace("C", "write 0+8 fua,preflush")
	r.wantTrace("O")
	r.release("C", blk.Write, 0)
	r.wantTrace("O", "write 8+8", "write 16+8")
	r.open()
	r.wantEnd(a, blk.OK)
	r.wantEnd(b, blk.OK)
	r.wantInfo("s", "Invalid")
}

func TestWritersWaitWhileManyCopiesAreInProgress(t *testing.T) {
	for _, kind := range []string{"P", "N"} {
		testWritersWait(t, kind)
	}
}

func testWritersWait(t *testing.T, kind string) {
	r := newGated(t, stepped(), 4096, 8192)
	o := r.device("o", 4096, "snapshot-origin O")
	s := r.device("s", 4096, "snapshot O C "+kind+" 8")
	sn := r.snap("s")
	r.setParam(thresholdParam, 3)
	r.forget()
	r.shut()
	var ws []*io
	for i := range uint64(20) {
		d := s
		if i%2 == 1 {
			d = o
		}
		ws = append(ws, r.write(d, i*8, 3, 2))
	}
	r.wantHeld("O", 4)
	if n := sn.throttled.count.Load(); n != 16 {
		t.Fatalf("%d held back", n)
	}
	for range 100 {
		r.gates["O"].ReleaseAll()
		r.gates["C"].ReleaseAll()
		r.run()
		if n := sn.inFlight.Used(); n > 4 {
			t.Fatalf("%d copies", n)
		}
	}
	for _, w := range ws {
		r.wantEnd(w, blk.OK)
	}
	sn.mustBeIdle(t)
	r.open()
	r.wantData(s, 8, 8, 1)
	r.wantData(s, 16, 3, 2)
}

// The last copy ends between the moment a writer reads their number and its wait.
func TestWriterRacesTheLastCopy(t *testing.T) {
	for _, line := range []string{"s P", "o P", "s N", "o N"} {
		dev, kind, _ := strings.Cut(line, " ")
		r := newGated(t, stepped(), 4096, 8192)
		r.device("o", 4096, "snapshot-origin O")
		s := r.device("s", 4096, "snapshot O C "+kind+" 8")
		sn := r.snap("s")
		sn.registry.threshold.Set(0)
		r.shut()
		a := r.write(s, 0, 8, 2)
		sn.stopOnce(pointHold, r.open)
		b := r.write(r.dev(dev), 8, 8, 2)
		r.wantEnd(a, blk.OK)
		r.wantEnd(b, blk.OK)
		sn.mustBeIdle(t)
	}
}

// A NoWait bio does not leave a pending exception on which others wait.
func TestNoWait(t *testing.T) {
	r, o, ss := several(t, stepped(), 256, "P", 8)
	s := ss[0]
	r.wantEnd(r.start(s, blk.Write, 40, 3, 2, blk.NoWait), blk.WouldBlock)
	r.wantEnd(r.start(o, blk.Write, 40, 3, 2, blk.NoWait), blk.WouldBlock)
	r.wantTrace("O")
	r.wantEnd(r.write(s, 40, 3, 2), blk.OK)
	r.wantEnd(r.start(s, blk.Write, 40, 3, 3, blk.NoWait), blk.OK)
	r.wantEnd(r.start(o, blk.Write, 40, 3, 3, blk.NoWait), blk.OK)
	r.wantEnd(r.start(s, blk.Read, 0, 8, 3, blk.NoWait), blk.OK)
	r.snap("D0").mustBeIdle(t)
}

func TestManySnapshotsOfOneOrigin(t *testing.T) {
	const n = 101
	r := newGated(t, env.Real(), 512, 8)
	o := r.device("o", 512, "snapshot-origin O")
	r.suspend("o")
	for i := range n {
		name := fmt.Sprintf("D%d", i)
		r.disks[name] = memdev.New(2048)
		r.device(name, 512, fmt.Sprintf("snapshot O %s P %d", name, 2<<(i%5)))
	}
	r.ok(r.resume("o"))
	r.wantEnd(r.write(o, 13, 400, 2), blk.OK)
	for i := range n {
		s := r.dev(fmt.Sprintf("D%d", i))
		r.wantData(s, 0, 512, 1)
		r.wantEnd(r.write(s, uint64(i), 3, uint64(10+i)), blk.OK)
	}
	for i := range n {
		r.wantData(r.dev(fmt.Sprintf("D%d", i)), uint64(i), 3, uint64(10+i))
		r.remove(fmt.Sprintf("D%d", i))
	}
}

func TestChunkSizes(t *testing.T) {
	for _, chunk := range []uint64{2, 4, 8, 16, 32, 64, 256, 4096, 1 << 16, 2 << 20} {
		for _, kind := range []string{"P", "N"} {
			if chunk == 2<<20 && (race || kind == "N") {
				continue // takes long and shows nothing new
			}
			r := newRig(t, env.Real(), disks{"O": memdev.New(8 << 20), "C": thrifty{memdev.New(16 << 20)}})
			r.ok(blk.WriteSectors(r.e, r.disks["O"], make([]byte, 4096), 4<<20, 0))
			s := r.device("s", 8<<20, fmt.Sprintf("snapshot O C %s %d", kind, chunk))
			o := r.device("o", 8<<20, "snapshot-origin O")
			r.wantEnd(r.write(s, 5<<20+1, 1, 2), blk.OK)
			r.wantEnd(r.write(o, 6<<20+1, 1, 3), blk.OK)
			r.wantData(s, 5<<20+1, 1, 2)
			r.wantData(s, 6<<20, 16, 0)
			used, meta := 2*chunk, uint64(0)
			if kind == "P" {
				used, meta = 4*chunk, 2*chunk
			}
			r.wantInfo("s", fmt.Sprintf("%d/%d %d", used, 16<<20, meta))
			r.remove("s")
			if kind == "P" {
				s = r.device("s", 8<<20, "snapshot O C P 0")
				r.wantData(s, 5<<20+1, 1, 2)
				r.wantData(s, 6<<20, 16, 0)
				r.remove("s")
			}
		}
	}
}

// thrifty stores no zeroes.
type thrifty struct{ *memdev.Device }

var noData [1 << 20]byte

func (d thrifty) Submit(b *blk.Bio) {
	if p, ok := b.Contiguous(); b.Op == blk.Write && ok && bytes.Equal(p, noData[:len(p)]) {
		b.Op = blk.WriteZeroes
	}
	d.Device.Submit(b)
}

// sparse reads as zeroes and is practically endless.
type sparse struct{ size uint64 }

func (d sparse) Submit(b *blk.Bio) {
	if b.Op == blk.Read {
		b.Zero()
	}
	b.Complete(blk.OK)
}
func (d sparse) Limits() blk.Limits { return blk.DefaultLimits(d.size) }
func (d sparse) Close() error       { return nil }
func (d sparse) String() string     { return "zero" }

func TestSparseDeviceOf15PiB(t *testing.T) {
	const size = 15 << 50 / 512
	r := newRig(t, env.Real(), disks{"O": sparse{size}, "C": memdev.New(1 << 20)})
	s := r.device("s", size, "snapshot O C P 8")
	for i := uint64(0); i < 100; i++ {
		at := i * (size / 100)
		r.wantEnd(r.write(s, at, 3, 2+i), blk.OK)
	}
	r.wantEnd(r.write(s, size-5, 5, 2), blk.OK)
	r.remove("s")
	s = r.device("s", size, "snapshot O C P 8")
	for i := uint64(0); i < 100; i++ {
		r.wantData(s, i*(size/100), 3, 2+i)
	}
	r.wantData(s, size-5, 5, 2)
	r.wantData(s, size/2+100, 1000, 0)
}

// In a target that does not begin at a chunk, bios are still cut at chunks.
func TestSnapshotBehindAnotherTarget(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	d, err := r.c.Create("s", "", -1)
	r.ok(err)
	r.gate("D", memdev.New(512))
	r.ok(d.Load([]dm.Spec{
		{Start: 0, Len: 100, Type: "snapshot", Params: "O C N 16"},
		{Start: 100, Len: 156, Type: "snapshot", Params: "O D N 16"},
	}, dm.Mode{Write: true}))
	r.ok(r.resume("s"))
	r.wantEnd(r.write(d, 90, 40, 2), blk.OK)
	r.wantInfo("s", "32/512 0")
	if got := d.Lines(dm.Info, false, 0)[1].Params; got != "48/512 0" {
		t.Errorf("second target: %s", got)
	}
	r.wantData(d, 0, 90, 1)
	r.wantData(d, 90, 40, 2)
	r.wantData(d, 130, 126, 1)
}

// The list of an origin's snapshots is sorted by chunk size, largest first, and by age
// among equals, also while snapshots come and go.
func TestListOfSnapshotsIsInOrder(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	var names []string
	for i, chunk := range []uint64{8, 32, 4, 8, 64, 4, 16, 128} {
		n := fmt.Sprintf("D%d", i)
		r.gate(n, memdev.New(1024))
		r.device(n, 256, fmt.Sprintf("snapshot O %s P %d", n, chunk))
		names = append(names, n)
		r.wantOrder(names)
	}
	for _, n := range []string{"D3", "D1"} { // a reload changes hands
		r.ok(r.load(n, 256, "snapshot O "+n+" P 8"))
		r.ok(r.resume(n))
		r.wantOrder(names)
	}
	for len(names) > 1 {
		r.remove(names[0])
		names = names[1:]
		r.wantOrder(names)
	}
}

// wantOrder checks the list of the snapshots of O, which are names.
func (r *rig) wantOrder(names []string) {
	r.Helper()
	m := r.snap(names[0]).group.members.Load()
	last := uint64(1 << 20)
	for _, s := range m.snaps {
		if n := s.chunkSize(); n > last {
			r.Errorf("chunks of %d sectors behind such of %d", n, last)
		} else {
			last = n
		}
	}
	if len(m.snaps) != len(names) || m.boundary != last {
		r.Errorf("%d of %d snapshots, boundary %d of %d", len(m.snaps), len(names), m.boundary, last)
	}
}

// Snapshots of one origin may be made at the same time, and the store of each has its own
// chunk size, which its table does not know.
func TestStoresAreReadAtOnce(t *testing.T) {
	r := newRig(t, env.Real(), disks{"O": filledWith(t, 256, 1)})
	var names []string
	for i, chunk := range []uint64{8, 32, 4, 8, 64, 4, 16, 128} {
		n := fmt.Sprintf("D%d", i)
		r.disks[n] = memdev.New(1024)
		r.device(n, 256, fmt.Sprintf("snapshot O %s P %d", n, chunk))
		names = append(names, n)
	}
	for range 20 {
		for _, n := range names {
			r.remove(n)
		}
		var all sync.WaitGroup
		for _, n := range names {
			all.Go(func() {
				err := r.load(n, 256, "snapshot O "+n+" P 8")
				if err == nil {
					err = r.resume(n)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		r.wantOrder(names)
	}
}
