package verity_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/internal/invariants"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
	"udm/targets/verity"
	"udm/targets/verity/hashtree"
	"udm/targets/verity/veritytools"
)

var types = []*dm.Type{verity.Type(), linear.Type()}

// disk is a verity disk on three disks of a rig: a has the data, b the tree from hash
// block 1 on, f the parity.
type disk struct {
	*targettest.Rig
	header *veritytools.Header
	root   []byte
	fec    verity.FEC
	data   []byte
}

// newDisk makes a disk of random data. Block 5 is zero.
func newDisk(t testing.TB, rng *rand.Rand, s hashtree.Shape, roots int) *disk {
	t.Helper()
	d := &disk{Rig: targettest.New(t, types), header: &veritytools.Header{Shape: s}, data: make([]byte, s.DataBlocks*uint64(s.DataBlock))}
	for i := range d.data {
		if i/s.DataBlock != 5 {
			d.data[i] = byte(rng.Uint32())
		}
	}
	d.Must(blk.WriteSectors(d.Sim, d.Disk("a"), d.data, 0, 0))
	d.Must(d.header.Check(uint64(s.HashBlock), false))
	var err error
	d.root, err = veritytools.Create(d.Sim, d.Disk("a"), d.Disk("b"), d.header)
	d.Must(err)
	if roots > 0 {
		d.fec, err = d.header.PlanFEC(0, d.hashBytes(), false, roots)
		d.Must(err)
		d.Must(veritytools.CreateFEC(d.Sim, d.Disk("a"), d.Disk("b"), d.Disk("f"), d.header, d.fec))
		d.fec.Device = "f"
	}
	return d
}

func (d *disk) hashBytes() uint64 {
	n, err := d.header.HashBytes()
	d.Must(err)
	return n
}

// table returns the disk's table after tune, which may be nil, has changed the line.
func (d *disk) table(tune func(*verity.Line)) string {
	l := d.header.Line("a", "b", d.root)
	l.FEC = d.fec
	if tune != nil {
		tune(l)
	}
	return fmt.Sprintf("0 %d verity %v", d.header.Sectors(), l)
}

// flip inverts bits of byte at of a disk.
func (d *disk) flip(name string, at uint64, bits byte) {
	d.Helper()
	p := make([]byte, blk.SectorSize)
	d.Must(blk.ReadSectors(d.Sim, d.Disk(name), p, at/blk.SectorSize))
	p[at%blk.SectorSize] ^= bits
	d.Must(blk.WriteSectors(d.Sim, d.Disk(name), p, at/blk.SectorSize, 0))
}

// read reads all of a device.
func (d *disk) read(x *dm.Device) ([]byte, blk.Status) {
	p := make([]byte, len(d.data))
	b := &blk.Bio{}
	b.SetData(p)
	st := blk.Do(d.Sim, x, b)
	return p, st
}

// sound checks that a device reads as it was created and has the given status.
func (d *disk) sound(x *dm.Device, status string) {
	d.Helper()
	if p, st := d.read(x); st != blk.OK || !bytes.Equal(p, d.data) {
		d.Fatalf("read %v, equal %t", st, bytes.Equal(p, d.data))
	}
	d.Lines(x, dm.Info, fmt.Sprintf("0 %d verity %s", d.header.Sectors(), status))
}

func shape(version, dataBlock, hashBlock int, blocks uint64, algorithm string, salt int) hashtree.Shape {
	return hashtree.Shape{Version: version, DataBlock: dataBlock, HashBlock: hashBlock, DataBlocks: blocks, Algorithm: algorithm, Salt: bytes.Repeat([]byte{7}, salt)}
}

// TestReads checks that disks of all algorithms and block sizes read as they were created.
func TestReads(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i, algorithm := range hashtree.Algorithms() {
		dataBlock, hashBlock := 512<<rng.IntN(4), 512<<rng.IntN(4)
		d := newDisk(t, rng, shape(i%2, dataBlock, hashBlock, 1+rng.Uint64N(uint64(1<<20/dataBlock)), algorithm, rng.IntN(40)), 0)
		d.sound(d.ReadOnly("x", d.table(nil)), "V")
	}
}

func TestText(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(1, 1)), shape(1, 4096, 4096, 8, "sha256", 3), 4)
	root := hex.EncodeToString(d.root)
	x := d.ReadOnly("x", d.table(nil))
	plain := "0 64 verity 1 7:0 7:1 4096 4096 8 1 sha256 " + root + " 070707"
	fec := "use_fec_from_device 7:5 fec_blocks 9 fec_start 0 fec_roots 4"
	d.Lines(x, dm.TableText, plain+" 8 "+fec)
	for words, want := range map[string]string{
		"": "", " 0": "", " 0 spare": "",
		" 1 IGNORE_CORRUPTION":                                            " 1 ignore_corruption",
		" 2 check_at_most_once restart_on_corruption":                     " 2 restart_on_corruption check_at_most_once",
		" 3 try_verify_in_tasklet panic_on_corruption IGNORE_zero_blocks": " 3 panic_on_corruption ignore_zero_blocks try_verify_in_tasklet",
	} {
		d.SwapReadOnly(x, strings.NewReplacer("7:0", "a", "7:1", "b").Replace(plain)+words)
		d.Lines(x, dm.TableText, plain+want)
	}
	if l := x.Limits(); l.LogicalBlock != 4096 || !l.ReadOnly || l.Size != 64 {
		t.Errorf("limits %+v", l)
	}
	d.Do(x, blk.Write, 0, 8, 1, blk.IOErr)
	d.Do(x, blk.Read, 4, 8, 1, blk.IOErr)
	d.Do(x, blk.Flush, 0, 0, 0, blk.OK)
}

func TestWritableTableIsRefused(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(1, 1)), shape(1, 512, 512, 8, "sha1", 0), 0)
	d.Refuses(d.table(nil) + " => EINVAL Device must be readonly")
}

var allBits = flag.Bool("allbits", false, "flip each bit, not a sample")

// part is a part of a disk whose bits are flipped.
type part struct {
	disk      string
	from, end uint64 // in bytes
}

// eachBit calls f for each bit of some parts while it is flipped, or for one of so many.
func (d *disk) eachBit(step uint64, parts []part, f func(p part, bit uint64)) {
	if *allBits {
		step = 1
	}
	n := 0
	for _, p := range parts {
		for bit := 8 * p.from; bit < 8*p.end; bit += step {
			d.flip(p.disk, bit/8, 1<<(bit%8))
			f(p, bit)
			d.flip(p.disk, bit/8, 1<<(bit%8))
			n++
		}
	}
	d.Logf("%d bits", n)
}

// TestEveryBit flips bits of a disk's data and hashes, one at a time. A read of the whole disk
// fails; of single blocks, only the one with the flipped bit does.
func TestEveryBit(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(1, 1)), shape(1, 512, 512, 18, "sha256", 3), 0)
	x := d.ReadOnly("x", d.table(nil))
	d.eachBit(9, []part{{"a", 0, uint64(len(d.data))}, {"b", 512, d.hashBytes()}}, func(p part, bit uint64) {
		d.SwapReadOnly(x, d.table(nil))
		if _, st := d.read(x); st != blk.IOErr {
			t.Fatalf("bit %d of disk %s flipped: read %v", bit, p.disk, st)
		}
		d.Lines(x, dm.Info, "0 18 verity C")
		if p.disk == "a" {
			block := bit / 8 / 512
			if block > 0 {
				d.Do(x, blk.Read, 0, block, 0, blk.OK)
			}
			d.Do(x, blk.Read, block, 1, 0, blk.IOErr)
		}
	})
	d.SwapReadOnly(x, d.table(nil))
	d.sound(x, "V")
}

// TestEveryBitWithParity is TestEveryBit with parity, which corrects each bit.
func TestEveryBitWithParity(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(1, 1)), shape(1, 512, 512, 18, "sha256", 3), 2)
	x := d.ReadOnly("x", d.table(nil))
	step := uint64(25)
	if invariants.Enabled {
		step = 323
	}
	parts := []part{{"a", 0, uint64(len(d.data))}, {"b", 512, d.hashBytes()}, {"f", 0, veritytools.FECBytes(d.fec, 512)}}
	d.eachBit(step, parts, func(part, uint64) {
		d.SwapReadOnly(x, d.table(nil))
		d.sound(x, "V")
	})
}

// TestWholeBlocks checks that as many blocks of a row are corrected as there is parity,
// because the hashes tell which ones are corrupted, and no more.
func TestWholeBlocks(t *testing.T) {
	const roots = 4
	rng := rand.New(rand.NewPCG(3, 1))
	d := newDisk(t, rng, shape(1, 512, 512, 600, "sha256", 3), roots)
	x := d.ReadOnly("x", d.table(nil))
	rounds := (d.fec.Blocks + 255 - roots - 1) / (255 - roots)
	spoil := func(block uint64) {
		d.Must(blk.WriteSectors(d.Sim, d.Disk("a"), bytes.Repeat([]byte{0x99}, 512), block, 0))
	}
	for i := range uint64(roots) {
		spoil(1 + i*rounds)
	}
	d.SwapReadOnly(x, d.table(nil))
	d.sound(x, "V")
	spoil(1 + roots*rounds)
	d.SwapReadOnly(x, d.table(nil))
	d.Do(x, blk.Read, 1, 1, 0, blk.IOErr)
	d.Do(x, blk.Read, 0, 1, 0, blk.OK)
	d.Lines(x, dm.Info, "0 600 verity C")
}

// TestUnreadable checks that parity recovers blocks that the data disk cannot read.
func TestUnreadable(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(3, 1)), shape(1, 512, 512, 40, "sha256", 3), 2)
	x := d.ReadOnly("x", d.table(nil))
	g := d.Gate("a")
	g.Shut()
	io := d.Submit(x, blk.Read, 0, 3, 2, 0)
	for range 2 { // the read, and the second read of its first block
		d.Held(io)
		g.Fail(g.Held()[0].Index, blk.IOErr)
		d.Sim.Run()
	}
	g.Open()
	d.Sim.Run()
	d.Done(io, blk.OK)
	if !bytes.Equal(io.Data, d.data[3*512:5*512]) {
		t.Error("read something else")
	}
	d.Lines(x, dm.Info, "0 40 verity V")
}

// TestReadErrors checks that without parity an I/O error is returned, and not counted as
// corruption.
func TestReadErrors(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(3, 1)), shape(1, 512, 512, 40, "sha256", 3), 0)
	for _, name := range []string{"a", "b"} {
		x := d.ReadOnly("x"+name, d.table(nil))
		d.Gate(name).Shut()
		io := d.Submit(x, blk.Read, 0, 3, 2, 0)
		d.Gate(name).Fail(d.Gate(name).Held()[0].Index, blk.IOErr)
		d.Sim.Run()
		d.Done(io, blk.IOErr)
		d.Gate(name).Open()
		d.sound(x, "V")
	}
}

// TestModes checks the result of reading a corrupted block in each mode, and the events.
func TestModes(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(3, 1)), shape(1, 512, 512, 40, "sha256", 3), 0)
	d.flip("a", 1600, 1)
	spoilt := bytes.Clone(d.data)
	spoilt[1600] ^= 1
	for mode := verity.Fail; mode <= verity.Panic; mode++ {
		x := d.ReadOnly(fmt.Sprint("x", mode), d.table(func(l *verity.Line) { l.Mode = mode }))
		events := x.Status().EventNr
		p, st := d.read(x)
		if want := map[bool]blk.Status{true: blk.OK, false: blk.IOErr}[mode == verity.Ignore]; st != want || st == blk.OK && !bytes.Equal(p, spoilt) {
			t.Errorf("mode %d: %v", mode, st)
		}
		d.Lines(x, dm.Info, "0 40 verity C")
		for range 150 {
			d.Submit(x, blk.Read, 0, 3, 1, 0)
		}
		if n := x.Status().EventNr - events; n != 100 {
			t.Errorf("mode %d: %d events", mode, n)
		}
	}
	d.flip("a", 1600, 1)
	// Corrupt the root block of the tree.
	d.flip("b", 512, 1)
	x := d.ReadOnly("y", d.table(nil))
	if _, st := d.read(x); st != blk.IOErr {
		t.Errorf("read %v below a corrupted root", st)
	}
	d.SwapReadOnly(x, d.table(func(l *verity.Line) { l.Mode = verity.Ignore }))
	d.flip("b", 512+40, 1) // in a hash that the following read uses
	if p, st := d.read(x); st != blk.OK || !bytes.Equal(p, d.data) {
		t.Errorf("ignoring it: %v", st)
	}
	d.Lines(x, dm.Info, "0 40 verity C")
}

// TestCheckedOnce checks that blocks are not verified again after their first read.
func TestCheckedOnce(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(3, 1)), shape(1, 512, 512, 40, "sha256", 3), 0)
	once := d.table(func(l *verity.Line) { l.CheckAtMostOnce = true })
	x := d.ReadOnly("x", once)
	d.Do(x, blk.Read, 0, 20, 0, blk.OK)
	d.flip("a", 10000, 1)
	d.flip("a", 11000, 1)
	d.Do(x, blk.Read, 0, 20, 0, blk.OK)
	d.Do(x, blk.Read, 20, 2, 0, blk.IOErr)
	d.SwapReadOnly(x, once)
	d.Do(x, blk.Read, 0, 20, 0, blk.IOErr)
}

// TestZeroBlocks checks that a block with the hash of zeroes reads as zeroes, whatever the
// disk contains.
func TestZeroBlocks(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(3, 1)), shape(1, 512, 512, 40, "sha256", 3), 0)
	d.flip("a", 5*512+3, 1)
	x := d.ReadOnly("x", d.table(nil))
	d.Do(x, blk.Read, 5, 1, 0, blk.IOErr)
	d.SwapReadOnly(x, d.table(func(l *verity.Line) { l.IgnoreZeroBlocks = true }))
	d.sound(x, "V")
}

// TestChangedMeanwhile checks that a client that changes its buffer during a read does not
// make the block count as corrupted.
func TestChangedMeanwhile(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(3, 1)), shape(1, 512, 512, 40, "sha256", 3), 0)
	x := d.ReadOnly("x", d.table(nil))
	d.Gate("b").Shut()
	io := d.Submit(x, blk.Read, 0, 0, 8, 0)
	io.Data[1000] ^= 1 // read but not verified yet
	d.Gate("b").Open()
	d.Sim.Run()
	d.Done(io, blk.OK)
	if !bytes.Equal(io.Data, d.data[:8*512]) {
		t.Error("read something else")
	}
	d.Lines(x, dm.Info, "0 40 verity V")
}

// TestHoles checks that only blocks with the hash of zeroes are reported as holes.
func TestHoles(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(3, 1)), shape(1, 4096, 4096, 16, "sha256", 3), 0)
	d.Must(blk.DiscardSectors(d.Sim, d.Disk("a"), 0, 128))
	for i := range uint64(16) {
		if i != 5 && i != 9 {
			d.Must(blk.WriteSectors(d.Sim, d.Disk("a"), d.data[i*4096:(i+1)*4096], i*8, 0))
		}
	}
	x := d.ReadOnly("x", d.table(nil))
	for _, e := range blk.ExtentsOf(x, 0, 128) {
		if e.Data != (e.Sector != 40) || !e.Data && e.Sectors != 8 {
			t.Errorf("extent %+v", e)
		}
	}
	d.Lines(x, dm.Info, "0 128 verity V")
}

// TestOddBuffers checks that blocks that span several buffers are verified.
func TestOddBuffers(t *testing.T) {
	d := newDisk(t, rand.New(rand.NewPCG(3, 1)), shape(1, 1024, 512, 40, "sha256", 3), 0)
	x := d.ReadOnly("x", d.table(nil))
	p := make([]byte, 8192)
	b := &blk.Bio{Sector: 2}
	b.SetBufs([][]byte{p[:1], p[1:700], nil, p[700:5000], p[5000:]}, 16)
	d.Must(blk.Do(d.Sim, x, b).Err())
	if !bytes.Equal(p, d.data[1024:1024+8192]) {
		t.Error("read something else")
	}
}
