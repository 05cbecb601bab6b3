package integrity_test

import (
	"bytes"
	"flag"
	"fmt"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
	"udm/targets/internal/targettest"
)

// small is a table of 512 sectors.
const small = "0 512 integrity a 0 4 J 4 internal_hash:crc32c journal_sectors:1 interleave_sectors:64 buffer_sectors:64"

func mode(table, m string) string {
	return strings.NewReplacer(" J ", " "+m+" ", " B ", " "+m+" ").Replace(table)
}

// TestModes checks that data written in mode J can be read in modes D and R, and data written
// in D in the others, and that R refuses writes.
func TestModes(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", small)
	r.Write(d, 0, 512, 1)
	r.Swap(d, mode(small, "D"))
	r.Want(d, 0, 512, 0, 1)
	r.Write(d, 100, 300, 2)
	r.Done(r.Submit(d, blk.Write, blk.FUA, 3, 1, 3), blk.OK)
	r.Swap(d, mode(small, "R"))
	r.Want(d, 0, 3, 0, 1)
	r.Want(d, 3, 1, 3, 3)
	r.Want(d, 100, 300, 100, 2)
	r.Do(d, blk.Write, 0, 8, 1, blk.IOErr)
	r.Swap(d, mode(small, "B"))
	r.Want(d, 100, 300, 100, 2)
	r.Write(d, 200, 9, 4)
	r.Want(d, 200, 9, 200, 4)
	r.Sim.Advance(20e9)
	r.Write(d, 300, 9, 5)
	r.Swap(d, small)
	r.Want(d, 100, 100, 100, 2)
	r.Want(d, 200, 9, 200, 4)
	r.Want(d, 300, 9, 300, 5)
	r.Lines(d, dm.Info, "0 512 integrity 0 3200 -")
}

// TestWrongBlocks changes the data or the tag of a block. Reads of the block fail and are
// counted, its neighbours can be read, and a write repairs it.
func TestWrongBlocks(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", mode(small, "D"))
	r.Write(d, 0, 512, 1)
	r.Must(d.Close())
	sectors := place(t, r, 1)
	for i, at := range []uint64{sectors, tagsOf(sectors)} {
		d = r.Device(fmt.Sprint("y", i), mode(small, "D"))
		p := make([]byte, 512)
		r.Must(blk.ReadSectors(r.Sim, r.Disk("a"), p, at))
		p[80] ^= 1
		r.Must(blk.WriteSectors(r.Sim, r.Disk("a"), p, at, 0))
		block := uint64(0)
		if i == 1 {
			block = 20
		}
		r.Do(d, blk.Read, 0, 64, 0, blk.IOErr)
		r.Do(d, blk.Read, block, 1, 0, blk.IOErr)
		r.Want(d, block+1, 20, block+1, 1)
		r.Lines(d, dm.Info, "0 512 integrity 2 3200 -")
		r.Write(d, block, 1, 1)
		r.Want(d, 0, 64, 0, 1)
		r.Must(d.Close())
	}
}

// place returns the sector of the first block with a pattern.
func place(t *testing.T, r *targettest.Rig, seed uint64) uint64 {
	t.Helper()
	p := make([]byte, 512)
	for at := uint64(8); at < targettest.Sectors; at++ {
		r.Must(blk.ReadSectors(r.Sim, r.Disk("a"), p, at))
		if s, ok := blktest.SeedOf(p, 0); ok && s == seed {
			return at
		}
	}
	t.Fatal("the pattern was not found")
	return 0
}

// tagsOf returns the sector of the first area's tags, given that of its data.
func tagsOf(sector uint64) uint64 { return sector - 256 }

// TestRecalculation recalculates tags in the background, also after an interruption, while
// the disk is written to.
func TestRecalculation(t *testing.T) {
	for _, m := range []string{"J", "D", "B"} {
		r := targettest.New(t, types)
		table := strings.NewReplacer("J 4 ", m+" 5 recalculate ", "0 512 ", "0 3072 ").Replace(small)
		d := r.Device("x", table)
		r.Sim.Run()
		r.Lines(d, dm.Info, "0 3072 integrity 0 3200 3200")
		r.Do(d, blk.Read, 0, 3072, 0, blk.OK)
		r.Suspend(d, false)
		r.Resume(d)
		r.Write(d, 1000, 100, 2)
		r.Swap(d, strings.NewReplacer("5 recalculate", "5 reset_recalculate").Replace(table))
		r.Want(d, 1000, 100, 1000, 2)
		r.Sim.Run()
		r.Lines(d, dm.Info, "0 3072 integrity 0 3200 3200")
		r.Lines(d, dm.TableText, "0 3072 integrity 7:0 0 4 "+m+" "+map[string]string{"J": "8", "D": "6", "B": "8"}[m]+
			" recalculate reset_recalculate journal_sectors:176 interleave_sectors:64 buffer_sectors:64"+map[string]string{"J": " journal_watermark:50 commit_time:10000", "B": " sectors_per_bit:32768 bitmap_flush_interval:10000"}[m]+" internal_hash:crc32c")
	}
}

// TestRecalculationInABlock opens a disk with a damaged superblock, whose recalculation ends
// in the middle of a block.
func TestRecalculationInABlock(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", tables[0])
	r.Must(d.Close())
	p := make([]byte, 512)
	r.Must(blk.ReadSectors(r.Sim, r.Disk("a"), p, 0))
	p[8], p[24], p[32] = 2, 2, 3
	r.Must(blk.WriteSectors(r.Sim, r.Disk("a"), p, 0, 0))
	d = r.Device("x", tables[0])
	r.Sim.Run()
	r.Do(d, blk.Read, 0, 512, 0, blk.OK)
}

// TestDiscards checks that discarded blocks are not verified until they are written again.
// Without the feature, discards fail.
func TestDiscards(t *testing.T) {
	for _, m := range []string{"J", "B"} {
		t.Run(m, func(t *testing.T) { testDiscards(t, mode(small, m)) })
	}
}

func testDiscards(t *testing.T, small string) {
	r := targettest.New(t, types)
	table := strings.Replace(small, " 4 internal", " 5 allow_discards internal", 1)
	d := r.Device("x", table)
	r.Write(d, 0, 512, 1)
	r.Do(d, blk.Discard, 30, 200, 0, blk.OK)
	r.Do(d, blk.Read, 0, 512, 0, blk.OK)
	r.Write(d, 40, 8, 2)
	r.Want(d, 40, 8, 40, 2)
	r.Want(d, 230, 282, 230, 1)
	r.Swap(d, small)
	r.Want(d, 40, 8, 40, 2)
	r.Do(d, blk.Read, 50, 1, 0, blk.IOErr)
	if d.Limits().MaxDiscard != 0 {
		t.Error("the limits allow discards")
	}
}

var allBits = flag.Bool("allbits", false, "flip each bit, not a sample")

// everyBit is the step between flipped bits: 1, or sample, or raced under the race detector.
func everyBit(sample, raced int) int {
	switch {
	case *allBits:
		return 1
	case invariants.Enabled:
		return raced
	}
	return sample
}

// every returns the step between the cases of a test: 1, short in a short run, or raced
// under the race detector, where each case is much slower.
func every(short, raced int) int {
	switch {
	case invariants.Enabled:
		return raced
	case testing.Short():
		return short
	}
	return 1
}

// TestEveryBitOfTheJournal flips bits of the superblock and of a journal that must be replayed,
// one at a time. Reads then fail or return the data that were written.
func TestEveryBitOfTheJournal(t *testing.T) {
	sealed := "0 512 integrity a 0 4 J 7 internal_hash:crc32c journal_sectors:1 interleave_sectors:64 buffer_sectors:64 fix_hmac "
	for name, table := range map[string]string{"plain": small, "ctr": sealed + sealedBy("ctr(aes)"), "cbc": sealed + sealedBy("cbc(aes)")} {
		t.Run(name, func(t *testing.T) { testEveryBit(t, table) })
	}
}

func testEveryBit(t *testing.T, small string) {
	d := zeroed(t, small)
	x := mustStart(t, d, small)
	if err := blk.WriteSectors(x.sim, x, blktest.Pattern(0, 40, 5), 0, blk.FUA); err != nil {
		t.Fatal(err)
	}
	d = d.crash(1)
	if err := x.control.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(d *disks) ([]byte, error) {
		x, err := start(d, small, dm.Mode{Write: true})
		if err != nil {
			return nil, err
		}
		p := make([]byte, 40*512)
		err = blk.ReadSectors(x.sim, x, p, 0)
		x.control.Close()
		return p, err
	}
	want, err := read(d.crash(2))
	if err != nil || !bytes.Equal(want, blktest.Pattern(0, 40, 5)) {
		t.Fatal("the journal was not replayed", err)
	}
	refused, bits := 0, 0
	step := everyBit(201, 1201)
	for bit := 0; bit < (16+40)*512*8; bit += step { // the blocks lie behind their entries
		at := bit / 8
		if at >= 512 && at < 8*512 { // unused
			continue
		}
		bits++
		broken := d.crash(3)
		flip(t, broken.mems["a"], 0, bit)
		got, err := read(broken)
		if err != nil {
			refused++
		} else if !bytes.Equal(got, want) {
			t.Errorf("bit %d flipped: read wrong data", bit)
		}
	}
	t.Logf("%d of %d bits refused", refused, bits)
	if refused*step < 4000 {
		t.Errorf("%d refused", refused)
	}
}

// TestEveryBit flips bits of some blocks and of their tags, one at a time. A read of the block
// fails, and the others can be read.
func TestEveryBit(t *testing.T) {
	const table = "0 512 integrity a 0 4 D 3 internal_hash:crc32c journal_sectors:1 meta_device:b"
	const blocks = 4
	d := zeroed(t, table)
	x := mustStart(t, d, table)
	data := blktest.Pattern(0, blocks, 5)
	if err := blk.WriteSectors(x.sim, x, data, 0, 0); err != nil {
		t.Fatal(err)
	}
	journal := journalSectors(t, x)
	if err := x.control.Close(); err != nil {
		t.Fatal(err)
	}
	step := everyBit(7, 61)
	n := 0
	for _, part := range []struct {
		disk       string
		sector     uint64
		bits, each int // in all, and of each block
	}{{"a", 0, blocks * 512 * 8, 512 * 8}, {"b", 8 + journal, blocks * 4 * 8, 4 * 8}} {
		for bit := 0; bit < part.bits; bit += step {
			n++
			broken := d.crash(1)
			flip(t, broken.mems[part.disk], part.sector, bit)
			y := mustStart(t, broken, table)
			for n := range uint64(blocks) {
				got := make([]byte, 512)
				err := blk.ReadSectors(y.sim, y, got, n)
				if wrong := int(n) == bit/part.each; wrong != (err != nil) || err == nil && !bytes.Equal(got, data[n*512:][:512]) {
					t.Fatalf("bit %d of disk %s: block %d: %v", bit, part.disk, n, err)
				}
			}
			if err := y.control.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d bits", n)
}

// journalSectors returns the size of the journal, from the table of a device.
func journalSectors(t *testing.T, x *device) (n uint64) {
	t.Helper()
	text := dm.FormatTable(x.Device.(*dm.Device).Lines(dm.TableText, false, 0))
	if _, err := fmt.Sscanf(text[strings.Index(text, "journal_sectors:"):], "journal_sectors:%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func flip(t *testing.T, m *memdev.Device, sector uint64, bit int) {
	t.Helper()
	sector += uint64(bit / (512 * 8))
	p := make([]byte, 512)
	err := blk.ReadSectors(env.Real(), m, p, sector)
	p[bit/8%512] ^= 1 << (bit % 8)
	if err == nil {
		err = blk.WriteSectors(env.Real(), m, p, sector, blk.FUA)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSuperblockMAC changes a byte of the superblock that nothing but its MAC covers.
func TestSuperblockMAC(t *testing.T) {
	const table = "0 512 integrity a 0 28 J 5 journal_sectors:1 interleave_sectors:64 buffer_sectors:64 fix_hmac journal_mac:hmac(sha256):" + key
	d := zeroed(t, table)
	if err := mustStart(t, d, table).control.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, d.mems["a"], 0, 300*8)
	if _, err := start(d, table, dm.Mode{Write: true}); err == nil || !strings.Contains(err.Error(), "MAC") {
		t.Errorf("a forged superblock was taken: %v", err)
	}
}

// TestMovedEntry moves a block in a journal to another sector, which only its MAC tells: the tags
// are those of another device.
func TestMovedEntry(t *testing.T) {
	const table = "0 512 integrity a 0 28 J 5 journal_sectors:1 interleave_sectors:64 buffer_sectors:64 fix_hmac journal_mac:hmac(sha256):" + key
	d := zeroed(t, table)
	x := mustStart(t, d, table)
	if err := blk.WriteSectors(x.sim, x, blktest.Pattern(0, 1, 5), 0, blk.FUA); err != nil {
		t.Fatal(err)
	}
	d = d.crash(1)
	if err := x.control.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, d.mems["a"], 8, 3) // of the first entry's sector
	if _, err := start(d, table, dm.Mode{Write: true}); err == nil || !strings.Contains(err.Error(), "MAC") {
		t.Errorf("the block was replayed to another sector: %v", err)
	}
}
