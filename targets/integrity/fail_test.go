package integrity_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/integrity"
)

// disks opens memory disks by name, each wrapped by wrap.
type disks struct {
	mems map[string]*memdev.Device
	wrap func(blk.Device) blk.Device
}

func newDisks(sectors uint64) *disks {
	return &disks{map[string]*memdev.Device{"a": memdev.New(sectors, memdev.Volatile), "b": memdev.New(sectors, memdev.Volatile)}, func(d blk.Device) blk.Device { return d }}
}

func (d *disks) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	return kept{d.wrap(d.mems[name])}, dm.Number{Major: 7, Minor: uint32(name[0] - 'a')}, nil
}

// crash returns the disks after a power cut.
func (d *disks) crash(seed uint64) *disks {
	after := &disks{map[string]*memdev.Device{}, func(d blk.Device) blk.Device { return d }}
	for name, m := range d.mems {
		after.mems[name] = m.CrashClone(seed + uint64(name[0]))
	}
	return after
}

type kept struct{ blk.Device }

func (kept) Close() error { return nil }

// device is a running device over disks, in a simulator.
type device struct {
	blk.Device
	sim     *env.Sim
	control *dm.Control
	table   string
}

func start(d *disks, table string, m dm.Mode) (*device, error) {
	sim := env.NewStepped()
	c := dm.NewControl(sim, d, integrity.Type())
	x, err := c.Create("x", "", -1)
	specs, _ := dm.ParseTable(table)
	if err == nil {
		err = x.Load(specs, m)
	}
	if err == nil {
		err = x.Resume(context.Background(), false)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &device{x, sim, c, table}, nil
}

func mustStart(t *testing.T, d *disks, table string) *device {
	t.Helper()
	x, err := start(d, table, dm.Mode{Write: true})
	if err != nil {
		t.Fatalf("%s: %v", table, err)
	}
	return x
}

const blocks = 64 // of 8 sectors, written by histories

// history writes and flushes random blocks, and records which versions a disk may have.
type history struct {
	rng  *rand.Rand
	x    *device
	last [blocks]uint64          // the newest acknowledged version
	may  [blocks]map[uint64]bool // versions that a power cut may leave; 0: zeroes

	piece uint64 // sectors of a block that are written whole
}

func newHistory(seed uint64, x *device) *history {
	h := &history{rng: rand.New(rand.NewPCG(seed, 1)), x: x, piece: 8}
	if strings.Contains(x.table, " B ") {
		h.piece = 1
	}
	for b := range h.may {
		h.may[b] = map[uint64]bool{0: true}
	}
	return h
}

// step does one random operation, which may fail.
func (h *history) step(version uint64) {
	b := h.rng.IntN(blocks)
	switch n := h.rng.IntN(10); {
	case n < 7:
		bio := &blk.Bio{Op: blk.Write, Sector: uint64(b) * 8}
		if n == 0 {
			bio.Flags = blk.FUA
		}
		bio.SetData(blktest.Pattern(bio.Sector, 8, version))
		h.may[b][version] = true
		if blk.Do(h.x.sim, h.x, bio) == blk.OK {
			h.last[b] = version
			if bio.Flags != 0 {
				h.may[b] = map[uint64]bool{version: true}
			}
		} else {
			h.last[b] = 0 // the old or the new version
		}
	case n < 9:
		before := h.last
		if blk.FlushDevice(h.x.sim, h.x) == nil {
			for b, v := range before {
				if v > 0 {
					h.may[b] = map[uint64]bool{v: true}
				}
			}
		}
	default:
		h.x.sim.Advance(20e9) // the journal is committed
	}
}

// pause suspends and resumes the device.
func (h *history) pause(t *testing.T) {
	t.Helper()
	d := h.x.Device.(*dm.Device)
	if err := d.Suspend(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	if err := d.Resume(context.Background(), false); err != nil {
		t.Fatal(err)
	}
}

// verify reads all blocks of x, and checks that each is one of the versions it may have and
// is not torn.
func (h *history) verify(t *testing.T, x *device, exact bool) {
	t.Helper()
	for b := range blocks {
		for _, v := range h.versions(t, x, b) {
			if exact && h.last[b] > 0 && v != h.last[b] || !h.may[b][v] {
				t.Fatalf("block %d has version %d, want %d of %v", b, v, h.last[b], h.may[b])
			}
		}
	}
}

// versions reads the versions of the pieces of a block.
func (h *history) versions(t *testing.T, x *device, b int) (versions []uint64) {
	t.Helper()
	block := make([]byte, 4096)
	if err := blk.ReadSectors(x.sim, x, block, uint64(b)*8); err != nil {
		t.Fatalf("block %d: %v, want one of the versions %v", b, err, h.may[b])
	}
	for n := uint64(0); n < 8; n += h.piece {
		at, p := uint64(b)*8+n, block[n*512:][:h.piece*512]
		v, ok := blktest.SeedOf(p[:512], at)
		if bytes.Equal(p, make([]byte, len(p))) {
			v = 0
		} else if !ok || blktest.Check(p, at, v) != nil {
			t.Fatalf("block %d is torn", b)
		}
		versions = append(versions, v)
	}
	return versions
}

// stay makes what can be read after a power cut all that may be there from now on.
func (h *history) stay(t *testing.T) {
	t.Helper()
	for b := range blocks {
		h.last[b], h.may[b] = 0, map[uint64]bool{}
		for _, v := range h.versions(t, h.x, b) {
			h.last[b], h.may[b][v] = v, true
		}
		if len(h.may[b]) > 1 {
			h.last[b] = 0
		}
	}
}

// tables have different journals; the first is small, so that it wraps around.
var tables = []string{
	"0 512 integrity a 0 4 J 5 internal_hash:crc32c journal_sectors:1 interleave_sectors:64 block_size:4096 buffer_sectors:64",
	"0 512 integrity a 0 - J 5 internal_hash:sha256 journal_sectors:400 interleave_sectors:8 fix_padding buffer_sectors:8",
	"0 512 integrity a 0 - J 4 internal_hash:crc32c journal_sectors:600 meta_device:b journal_watermark:90",
	"0 512 integrity a 0 4 B 6 internal_hash:crc32c journal_sectors:1 interleave_sectors:64 buffer_sectors:64 sectors_per_bit:8 bitmap_flush_interval:100",
	"0 512 integrity a 0 4 B 6 internal_hash:crc32c journal_sectors:1 interleave_sectors:64 block_size:4096 buffer_sectors:64 sectors_per_bit:100",
	"0 512 integrity a 0 - B 3 internal_hash:sha256 meta_device:b sectors_per_bit:0",
	"0 512 integrity a 0 4 J 7 internal_hash:crc32c journal_sectors:1 interleave_sectors:64 buffer_sectors:64 fix_hmac " + sealedBy("ctr(aes)"),
	"0 512 integrity a 0 4 J 8 internal_hash:crc32c journal_sectors:400 interleave_sectors:64 block_size:4096 buffer_sectors:64 fix_hmac " + sealedBy("cbc(aes)"),
}

// sealedBy returns the features for a journal with MACs that is encrypted.
func sealedBy(cipher string) string {
	return "journal_mac:hmac(sha256):" + key + " journal_crypt:" + cipher + ":" + key
}

// explained checks the whole state of a disk after a power cut: in mode B, the superblock or a
// bit tells of each block that does not match its tag.
func explained(t *testing.T, d *disks, table string) {
	t.Helper()
	if !strings.Contains(table, " B ") {
		return
	}
	meta := d.mems["a"]
	if strings.Contains(table, "meta_device:b") {
		meta = d.mems["b"]
	}
	line, err := integrity.ParseLine(strings.Fields(table)[3:])
	if err != nil {
		t.Fatal(err)
	}
	bad, err := integrity.Unexplained(env.Real(), d.mems["a"], meta, line, 512)
	if err != nil || len(bad) > 0 {
		t.Fatalf("no bits for %d blocks whose tags do not match, %v", len(bad), err)
	}
}

// zeroed formats the disk of a table and fills its blocks with zeroes.
func zeroed(t *testing.T, table string) *disks {
	t.Helper()
	d := newDisks(4096)
	x := mustStart(t, d, table)
	if err := blk.WriteSectors(x.sim, x, make([]byte, 512*512), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := x.control.Close(); err != nil {
		t.Fatal(err)
	}
	for _, m := range d.mems {
		if err := blk.FlushDevice(x.sim, m); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestPowerCuts cuts the power at random times in random histories, several times in a row.
// Each block then has a version that was acknowledged or being written, not older than the
// last flush. Tables of mode B go to mode J and back.
func TestPowerCuts(t *testing.T) {
	for i, table := range tables {
		for seed := uint64(0); seed < 8; seed += uint64(every(2, 4)) {
			t.Run(fmt.Sprint(i, seed), func(t *testing.T) {
				d := zeroed(t, table)
				h := newHistory(seed, mustStart(t, d, table))
				version := uint64(1)
				for cut := range uint64(4) {
					for range 10 + h.rng.IntN(150) {
						h.step(version)
						version++
						if h.rng.IntN(50) == 0 {
							h.pause(t)
						}
					}
					h.verify(t, h.x, true)
					d = d.crash(seed*10 + cut)
					explained(t, d, h.x.table)
					next := table
					if h.rng.IntN(3) == 0 {
						next = mode(table, "J")
					}
					h.x = mustStart(t, d, next)
					h.verify(t, h.x, false)
					h.stay(t)
				}
				h.ends(t, d, h.x.table)
			})
		}
	}
}

// ends closes the device and checks the whole disk in mode R: the journal is empty, and each
// block matches its tag.
func (h *history) ends(t *testing.T, d *disks, table string) {
	t.Helper()
	if err := h.x.control.Close(); err != nil {
		t.Fatal(err)
	}
	explained(t, d, table)
	x, err := start(d, strings.NewReplacer(" J ", " R ", " B ", " R ").Replace(table), dm.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	h.verify(t, x, true)
	if err := x.control.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestEachFailingIO makes the Nth I/O on the disks and all later ones fail, for each N.
// Acknowledged data can be read while the device runs, flushed data after a power cut.
func TestEachFailingIO(t *testing.T) {
	for i, table := range tables {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			base := zeroed(t, table)
			n := blktest.FailEvery(t, every(3, 11), func(t *testing.T, f *blktest.Failer) {
				d := base.crash(1)
				d.wrap = f.Wrap
				x, err := start(d, table, dm.Mode{Write: true})
				if err != nil {
					if !f.Failed() {
						t.Error(err)
					}
					return
				}
				h := newHistory(7, x)
				for v := range uint64(40) {
					h.step(v + 1)
				}
				x.control.Close()
				d = d.crash(2)
				explained(t, d, table)
				x = mustStart(t, d, table)
				h.verify(t, x, false)
				if err := x.control.Close(); err != nil {
					t.Error(err)
				}
			})
			t.Logf("%d I/Os", n)
		})
	}
}
