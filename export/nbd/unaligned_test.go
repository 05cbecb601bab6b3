package nbd_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/export"
	"udm/export/nbd"
	"udm/internal/nbd/proto"
)

// raw is a client that heeds no block size. It sends one request at a time and takes
// simple replies.
type raw struct {
	testing.TB
	net.Conn
	cookie uint64
}

func newRaw(t testing.TB, addr string) *raw {
	t.Helper()
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	r := &raw{TB: t, Conn: nc}
	r.send(newTape(fixed).option(proto.OptExportName).in.Bytes())
	r.receive(18 + 10)
	return r
}

func (r *raw) send(p []byte) {
	if _, err := r.Write(p); err != nil {
		r.Error(err)
	}
}

func (r *raw) receive(n int) []byte {
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		r.Error(err)
	}
	return p
}

// start sends a request, finish takes its reply.
func (r *raw) start(c proto.Cmd, flags uint16, offset, length uint64, payload []byte) {
	r.cookie++
	q := proto.Request{Flags: flags, Cmd: c, Cookie: r.cookie, Offset: offset, Length: length}
	r.send(append(q.Append(nil, false), payload...))
}

func (r *raw) finish(n uint64) []byte {
	if e := be.Uint32(r.receive(proto.SimpleSize)[4:]); e != 0 {
		r.Errorf("request %d: error %d", r.cookie, e)
	}
	return r.receive(int(n))
}

func (r *raw) do(c proto.Cmd, flags uint16, offset, length uint64, payload []byte) []byte {
	r.start(c, flags, offset, length, payload)
	if c != proto.CmdRead {
		length = 0
	}
	return r.finish(length)
}

// blocks4K serves a disk with blocks of 4096 bytes.
func blocks4K(t *testing.T, wrap func(blk.Device) blk.Device) (*memdev.Device, string) {
	d := memdev.New(diskSize/blk.SectorSize, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.LogicalBlock, l.PhysicalBlock = 4096, 4096 }))
	_, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Info: nbd.Info{Name: "disk"}, Device: export.Check(wrap(d))}}})
	return d, addr
}

// Requests of any offset and length do to the disk what they do to bytes.
func TestUnaligned(t *testing.T) {
	blktest.Leaks(t)
	d, addr := blocks4K(t, func(d blk.Device) blk.Device { return d })
	c := newRaw(t, addr)
	model := make([]byte, diskSize)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		off := rng.Uint64N(diskSize)
		n := 1 + rng.Uint64N(min(diskSize-off, 1<<(rng.UintN(18)+1)))
		switch cmd := []proto.Cmd{proto.CmdRead, proto.CmdWrite, proto.CmdWriteZeroes, proto.CmdCache}[rng.IntN(4)]; cmd {
		case proto.CmdRead:
			if !bytes.Equal(c.do(cmd, 0, off, n, nil), model[off:off+n]) {
				t.Fatalf("read %d of %d+%d differs", i, off, n)
			}
		case proto.CmdWrite:
			p := bytes.Repeat([]byte{byte(i)}, int(n))
			c.do(cmd, uint16(rng.IntN(2))*proto.CmdFlagFUA, off, n, p)
			copy(model[off:], p)
		case proto.CmdWriteZeroes:
			c.do(cmd, 0, off, n, nil)
			clear(model[off : off+n])
		default:
			c.do(cmd, 0, off, n, nil)
		}
	}
	if !bytes.Equal(content(t, d), model) {
		t.Error("the disk differs")
	}
	// A trim takes away whole blocks only.
	c.do(proto.CmdWrite, 0, 0, 16384, bytes.Repeat([]byte{9}, 16384))
	c.do(proto.CmdTrim, proto.CmdFlagFUA, 100, 12000, nil)
	c.do(proto.CmdTrim, 0, 100, 50, nil)
	want := append(bytes.Repeat([]byte{9}, 4096), append(make([]byte, 4096), bytes.Repeat([]byte{9}, 8192)...)...)
	if got := content(t, d)[:16384]; !bytes.Equal(got, want) {
		t.Error("a trim has changed more or less than the whole blocks in its range")
	}
}

// later is a device that lets others run before it does anything.
type later struct{ blk.Device }

func (d later) Submit(b *blk.Bio) {
	go func() {
		for range 20 {
			runtime.Gosched()
		}
		d.Device.Submit(b)
	}()
}

// Clients that write to parts of the same blocks keep each other's bytes.
func TestUnalignedSideBySide(t *testing.T) {
	blktest.Leaks(t)
	d, addr := blocks4K(t, func(d blk.Device) blk.Device { return later{d} })
	const lanes, blocks, writes = 4, 4, 400
	var all sync.WaitGroup
	last := make([][blocks]byte, lanes)
	for lane := range uint64(lanes) {
		c := newRaw(t, addr)
		all.Go(func() {
			rng := rand.New(rand.NewPCG(lane, 0))
			for i := range writes {
				b := rng.Uint64N(blocks)
				if got := c.do(proto.CmdRead, 0, b*4096+lane*1024, 1, nil)[0]; got != last[lane][b] {
					t.Errorf("client %d has lost a write to block %d: %d, want %d", lane, b, got, last[lane][b])
					return
				}
				last[lane][b] = byte(i + 1)
				c.do(proto.CmdWrite, 0, b*4096+lane*1024, 1024, bytes.Repeat([]byte{byte(i + 1)}, 1024))
			}
		})
	}
	all.Wait()
	disk := content(t, d)
	for lane := range lanes {
		for b := range blocks {
			if got := disk[b*4096+lane*1024:][:1024]; !bytes.Equal(got, bytes.Repeat([]byte{last[lane][b]}, 1024)) {
				t.Errorf("client %d has lost a write to block %d: %d, want %d", lane, b, got[0], last[lane][b])
			}
		}
	}
}

// A write of a part of a block at the same time as one of the whole block takes nothing of
// the latter back.
func TestUnalignedBesideWhole(t *testing.T) {
	blktest.Leaks(t)
	d, addr := blocks4K(t, func(d blk.Device) blk.Device { return later{d} })
	whole, part := newRaw(t, addr), newRaw(t, addr)
	for i := range 1000 {
		part.start(proto.CmdWrite, 0, 4095, 1, []byte{7})
		whole.start(proto.CmdWrite, 0, 0, 4096, bytes.Repeat([]byte{byte(i)}, 4096))
		part.finish(0)
		whole.finish(0)
		if got := content(t, d)[:4095]; !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, 4095)) {
			t.Fatalf("write %d of the whole block is lost: %d", i, got[0])
		}
	}
}

// A write of a whole block waits for one to a part of it, and the reverse.
func TestUnalignedWaits(t *testing.T) {
	blktest.Leaks(t)
	_, g, addr := gated(t, nbd.Config{})
	part, whole := newRaw(t, addr), newRaw(t, addr)
	part.start(proto.CmdWrite, proto.CmdFlagFUA, 100, 50, bytes.Repeat([]byte{1}, 50))
	if h := g.WaitHeld(1); h[0].Op != blk.Read {
		t.Fatalf("held %v", h)
	}
	whole.start(proto.CmdWrite, 0, 0, 512, bytes.Repeat([]byte{2}, 512))
	g.Release(g.WaitHeld(1)[0].Index)
	h := g.WaitHeld(1)
	if h[0].Op != blk.Write || h[0].Flags&blk.FUA == 0 {
		t.Errorf("after the read of the block came %v", h)
	}
	g.Release(h[0].Index)
	part.finish(0)
	h = g.WaitHeld(1)
	part.start(proto.CmdWrite, 0, 7, 1, []byte{3})
	g.Release(h[0].Index)
	whole.finish(0)
	for range 2 {
		g.Release(g.WaitHeld(1)[0].Index)
	}
	part.finish(0)
	got := part
	got.start(proto.CmdRead, 0, 0, 512, nil)
	g.Release(g.WaitHeld(1)[0].Index)
	want := bytes.Repeat([]byte{2}, 512)
	want[7] = 3
	if !bytes.Equal(got.finish(512), want) {
		t.Error("a write was lost")
	}
}
