package logwrites_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
	logwrites "udm/targets/log-writes"
)

var types = []*dm.Type{logwrites.Type(), linear.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 4096 log-writes a b")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 linear a 5", "0 5000 log-writes /dev/dm-0 b", "0 2000 linear /dev/dm-1 7\n2000 2096 linear c 0")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 log-writes => EINVAL Invalid argument count
		0 64 log-writes a => EINVAL Invalid argument count
		0 64 log-writes /none b => ENODEV Device lookup failed
		0 64 log-writes a /none => ENODEV Log device lookup failed
		0 16385 log-writes a b => EINVAL 7:0 too small for target: start=0, len=16385, dev_size=16384
	`)
}

func TestTextAndMessages(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 log-writes a b spare")
	r.Lines(d, dm.TableText, "0 64 log-writes 7:0 7:1")
	r.Lines(d, dm.Info, "0 64 log-writes 0 0")
	r.Message(d, "mark", "", syscall.EINVAL)
	r.Message(d, "mark a b", "", syscall.EINVAL)
	r.Message(d, "foo bar", "", syscall.EINVAL)
}

// log reads the log on a disk: one line for each entry up to the end mark, the
// data of writes by the seed of its pattern.
func log(r *targettest.Rig, disk string, block uint64) string {
	r.Helper()
	p := make([]byte, targettest.Sectors*blk.SectorSize)
	r.Must(blk.ReadSectors(r.Sim, r.Disk(disk), p, 0))
	u64 := func(i uint64) uint64 { return binary.LittleEndian.Uint64(p[i:]) }
	if u64(0) != 0x6a736677736872 || u64(8) != 1 || uint64(binary.LittleEndian.Uint32(p[24:])) != block {
		r.Fatalf("superblock %x", p[:32])
	}
	var b strings.Builder
	for n, at := u64(16), block; n > 0; n-- {
		sector, blocks, flags, length := u64(at), u64(at+8), u64(at+16), u64(at+24)
		var words []string
		for i, name := range []string{"flush", "fua", "discard", "mark"} {
			if flags&(1<<i) != 0 {
				words = append(words, name)
			}
		}
		text := string(p[at+32 : at+32+length])
		at += block
		if flags&^2 == 0 {
			seed, ok := blktest.SeedOf(p[at:at+blk.SectorSize], sector*block/blk.SectorSize)
			text = fmt.Sprintf("seed %d %v", seed, ok)
			at += blocks * block
		}
		fmt.Fprintf(&b, "%d+%d %s %s\n", sector, blocks, strings.Join(words, ","), text)
	}
	return b.String()
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestLikeLinux makes the log that Linux 6.1 has made: see testdata/README.
func TestLikeLinux(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 log-writes a b")
	write := func(sector, sectors uint64, fill byte) {
		b := &blk.Bio{Op: blk.Write, Sector: sector, End: func(*blk.Bio) {}}
		b.SetData(bytes.Repeat([]byte{fill}, int(sectors)*blk.SectorSize))
		d.Submit(b)
		r.Sim.Run()
		r.Must(b.Status().Err())
	}
	write(4, 2, 'A')
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	write(8, 2, 0)
	r.Lines(d, dm.Info, "0 64 log-writes 2 4")
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Lines(d, dm.Info, "0 64 log-writes 4 8")
	r.Message(d, "mark hello", "", 0)
	r.Message(d, "MARK yes", "", 0)
	r.Sim.Run()
	r.Lines(d, dm.Info, "0 64 log-writes 6 10")
	r.Do(d, blk.Discard, 8, 16, 0, blk.OK)
	write(9, 1, 'B')
	r.Lines(d, dm.Info, "0 64 log-writes 6 10")
	r.Must(d.Close())
	golden, err := os.ReadFile("testdata/linux-6.1.log")
	r.Must(err)
	got := make([]byte, len(golden))
	r.Must(blk.ReadSectors(r.Sim, r.Disk("b"), got, 0))
	if !bytes.Equal(got, golden) {
		for i := range got {
			if got[i] != golden[i] {
				t.Fatalf("byte %#x is %#x, Linux wrote %#x", i, got[i], golden[i])
			}
		}
	}
}

// TestOrder is the example in the kernel's source: W is written, C completes:
// Wa Wb Wc Cc Ca flush FUAd Cb Cflush CFUAd.
func TestOrder(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 log-writes a b")
	g := r.Gate("a")
	g.Shut()
	for i := range uint64(3) {
		r.Submit(d, blk.Write, 0, i*8, 8, i+1)
	}
	g.Release(2)
	g.Release(0)
	r.Submit(d, blk.Flush, 0, 0, 0, 0)
	r.Submit(d, blk.Write, blk.FUA, 24, 8, 4)
	g.Release(1)
	r.Sim.Run()
	r.Lines(d, dm.Info, "0 64 log-writes 0 0")
	g.Release(3)
	r.Sim.Run()
	r.Lines(d, dm.Info, "0 64 log-writes 3 19")
	g.Release(4)
	r.Sim.Run()
	want(t, log(r, "b", 512), "16+8  seed 3 true\n0+8  seed 1 true\n0+0 flush \n24+8 fua seed 4 true\n")
	g.Open()
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Message(d, "mark m", "", 0)
	r.Sim.Run()
	want(t, log(r, "b", 512), "16+8  seed 3 true\n0+8  seed 1 true\n0+0 flush \n24+8 fua seed 4 true\n8+8  seed 2 true\n0+0 flush \n0+0 mark m\n")
}

// TestOverwrittenFirst: what a write with FUA has overwritten is in the log in
// front of it, also if a flush that is under way has taken it; the rest waits.
func TestOverwrittenFirst(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 log-writes a b")
	r.Write(d, 0, 8, 1)
	r.Write(d, 16, 8, 2)
	g := r.Gate("a")
	g.Shut()
	r.Submit(d, blk.Flush, 0, 0, 0, 0)
	r.Submit(d, blk.Write, 0, 4, 8, 3)
	r.Submit(d, blk.Write, 0, 32, 8, 4)
	g.Release(g.Held()[2].Index)
	g.Release(g.Held()[1].Index)
	r.Submit(d, blk.Write, blk.FUA, 6, 8, 5)
	g.Release(g.Held()[1].Index)
	g.Open()
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Message(d, "mark m", "", 0)
	r.Sim.Run()
	want(t, log(r, "b", 512), "0+8  seed 1 true\n4+8  seed 3 true\n6+8 fua seed 5 true\n16+8  seed 2 true\n0+0 flush \n32+8  seed 4 true\n0+0 flush \n0+0 mark m\n")
}

// TestDataIsCopied: the log has what was submitted, whatever the buffer holds
// when the log is written; a write that fails is logged, too.
func TestDataIsCopied(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 log-writes a b")
	r.Gate("b").Shut()
	x := r.Submit(d, blk.Write, blk.FUA, 8, 8, 5)
	r.Done(x, blk.OK) // does not wait for the log
	clear(x.Data)
	r.Gate("a").Shut()
	x = r.Submit(d, blk.Write, blk.FUA, 16, 8, 6)
	r.Gate("a").Fail(r.Gate("a").Held()[0].Index, blk.IOErr)
	r.Done(x, blk.IOErr)
	r.Gate("a").Open()
	r.Gate("b").Open()
	r.Sim.Run()
	want(t, log(r, "b", 512), "8+8 fua seed 5 true\n16+8 fua seed 6 true\n")
}

func TestFullLog(t *testing.T) {
	r := targettest.New(t, types)
	r.Device("small", "0 8 linear b 0")
	d := r.Device("x", "0 64 log-writes a /dev/mapper/small")
	status := []string{"2 3", "4 6", "4 8 logging_disabled", "4 8 logging_disabled"}
	for i, s := range status {
		r.Write(d, uint64(i), 1, 1)
		r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
		r.Lines(d, dm.Info, "0 64 log-writes "+s)
	}
	r.Want(d, 3, 1, 3, 1)
}

// TestLastSector: the log's last sector is not used.
func TestLastSector(t *testing.T) {
	r := targettest.New(t, types)
	r.Device("small", "0 7 linear b 0")
	d := r.Device("x", "0 64 log-writes a /dev/mapper/small")
	r.Write(d, 0, 1, 1)
	r.Write(d, 1, 1, 1)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Lines(d, dm.Info, "0 64 log-writes 3 5")
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Lines(d, dm.Info, "0 64 log-writes 3 6 logging_disabled")
}

func TestFailingLog(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 log-writes a b")
	r.Gate("b").Shut()
	r.Done(r.Submit(d, blk.Write, blk.FUA, 0, 8, 1), blk.OK)
	r.Gate("b").Fail(0, blk.IOErr)
	r.Sim.Run()
	r.Lines(d, dm.Info, "0 64 log-writes 1 9 logging_disabled")
	r.Write(d, 0, 8, 2)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
}

func TestDiscardThatTheDeviceLacks(t *testing.T) {
	r := targettest.New(t, types, func(l *blk.Limits) { l.MaxDiscard = 0 })
	d := r.Device("x", "0 64 log-writes a b")
	if l := d.Limits(); l.MaxDiscard == 0 || !l.VolatileCache {
		t.Errorf("limits %+v", l)
	}
	r.Do(d, blk.Discard, 8, 8, 0, blk.OK)
	r.Trace("a", "")
	r.Must(d.Close())
	want(t, log(r, "b", 512), "8+8 discard \n0+0 mark dm-log-writes-end\n")
}

// TestBlocks: the log counts in logical blocks of the device.
func TestBlocks(t *testing.T) {
	r := targettest.New(t, types, func(l *blk.Limits) { l.LogicalBlock, l.PhysicalBlock = 4096, 4096 })
	d := r.Device("x", "0 64 log-writes a b")
	r.Lines(d, dm.Info, "0 64 log-writes 0 7")
	r.Write(d, 16, 24, 5)
	r.Do(d, blk.Discard, 40, 8, 0, blk.OK)
	r.Message(d, "mark "+strings.Repeat("x", 5000), "", 0)
	r.Must(d.Close())
	want(t, log(r, "b", 4096), "0+0 mark "+strings.Repeat("x", 4063)+"\n2+3  seed 5 true\n5+1 discard \n0+0 mark dm-log-writes-end\n")
}
