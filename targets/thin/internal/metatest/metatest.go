// Package metatest keeps a model beside thin metadata, for the tests of the live
// metadata and of the offline tools.
package metatest

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/internal/invariants"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

var (
	// Seed is the seed of the random tests.
	Seed = flag.Uint64("seed", 1, "seed of the random tests")

	checkEach = flag.Bool("checkeach", false, "run thin_check after every commit")
)

// Scaled returns a smaller size for a test when invariants make every access slow.
func Scaled(n int) int {
	if invariants.Enabled {
		return max(1, n/6)
	}
	return n
}

// Pool is metadata with a model beside it.
type Pool struct {
	T   *testing.T
	Dev *memdev.Device
	M   *thinmeta.Metadata
	O   thinmeta.Options
	Via func(blk.Device) blk.Device // wraps Dev for M; may be nil

	Now, Old State // the model of the running and of the committed transaction
}

// State is what a pool should hold: the mappings of each device, from thin block to
// data block.
type State struct {
	Devs map[uint32]map[uint64]uint64
	Size uint64 // data blocks
}

// Clone returns a deep copy.
func (s State) Clone() State {
	c := State{map[uint32]map[uint64]uint64{}, s.Size}
	for id, m := range s.Devs {
		c.Devs[id] = maps.Clone(m)
	}
	return c
}

const testBlockSize = 128

// Disk returns an empty metadata device.
func Disk(blocks uint64) *memdev.Device {
	return memdev.New(blocks*pdata.BlockSectors, memdev.Volatile)
}

// New creates a pool with data data blocks on a metadata device of the given number
// of blocks. It is checked when the test ends.
func New(t *testing.T, blocks, data uint64, cache int) *Pool {
	t.Helper()
	p := &Pool{T: t, Dev: Disk(blocks), O: thinmeta.Options{DataBlockSize: testBlockSize, Format: true, CacheBytes: cache}}
	p.Now = State{Devs: map[uint32]map[uint64]uint64{}}
	p.Open()
	p.Old = p.Now.Clone()
	if err := p.M.ResizeData(data); err != nil {
		t.Fatal(err)
	}
	p.Now.Size = data
	p.Commit()
	t.Cleanup(p.check)
	return p
}

// Open opens the metadata on the disk.
func (p *Pool) Open() {
	p.T.Helper()
	var dev blk.Device = p.Dev
	if p.Via != nil {
		dev = p.Via(dev)
	}
	m, err := thinmeta.Open(env.Real(), dev, p.O)
	if err != nil {
		p.T.Fatal(err)
	}
	p.M = m
}

// Commit commits the metadata and the model.
func (p *Pool) Commit() {
	p.T.Helper()
	if err := p.M.Commit(); err != nil {
		p.T.Fatal(err)
	}
	p.Old = p.Now.Clone()
	if *checkEach {
		Tool(p.T, p.Dev, "thin_check")
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check commits and checks the whole state.
func (p *Pool) check() {
	p.T.Helper()
	if p.M.Failed() || p.M.Err() != nil {
		return
	}
	p.Commit()
	Verify(p.T, p.Dev, p.Now)
}

// Verify checks the metadata on a disk against a model.
func Verify(t *testing.T, dev blk.Device, want State) {
	t.Helper()
	ok(t, Matches(dev, want))
}

// MatchesBeside is Matches, but ignores devices that are being deleted.
func MatchesBeside(dev blk.Device, want State) error { return matches(dev, want, thinmeta.MaxID) }

// Matches returns how the metadata on a disk differs from a model.
func Matches(dev blk.Device, want State) error { return matches(dev, want, math.MaxUint32) }

// matches ignores devices with ids above highest.
func matches(dev blk.Device, want State, highest uint32) error {
	r, err := thintools.Check(env.Real(), dev, thintools.CheckOptions{CacheBytes: 1 << 20})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return err
	}
	maps.DeleteFunc(r.Devices, func(id uint32, _ thinmeta.Details) bool { return id > highest })
	if !maps.EqualFunc(r.Devices, want.Devs, func(d thinmeta.Details, m map[uint64]uint64) bool { return d.Mapped == uint64(len(m)) }) {
		return fmt.Errorf("devices are %v, want %d", r.Devices, len(want.Devs))
	}
	m, err := thinmeta.Open(env.Real(), dev, thinmeta.Options{ReadOnly: true, CacheBytes: 1 << 20})
	if err != nil {
		return err
	}
	for id, want := range want.Devs {
		if got, err := Mappings(m, id); err != nil || !maps.Equal(got, want) {
			return fmt.Errorf("device %d has %d mappings, want %d, or others: %v", id, len(got), len(want), err)
		}
	}
	return nil
}

// Mappings returns all mappings of a device, from thin block to data block.
func Mappings(m *thinmeta.Metadata, id uint32) (map[uint64]uint64, error) {
	th, err := m.OpenThin(id)
	if err != nil {
		return nil, err
	}
	defer th.Close()
	got := map[uint64]uint64{}
	for at := uint64(0); ; {
		r, err := th.FindRange(at, 1<<62)
		if err == syscall.ENODATA {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		for b := r.ThinBegin; b < r.ThinEnd; b++ {
			got[b] = r.DataBegin + b - r.ThinBegin
		}
		at = r.ThinEnd
	}
}

// Tool runs a program of thin-provisioning-tools on the content of a disk and fails
// the test unless it exits with 0. If the program is not installed, it logs that;
// thintools.Check must suffice.
func Tool(t *testing.T, dev blk.Device, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("/usr/sbin/" + name)
	if err != nil {
		t.Logf("%s is not installed: only checked by ourselves", name)
		r, err := thintools.Check(env.Real(), dev, thintools.CheckOptions{})
		ok(t, err)
		ok(t, r.Err())
		return ""
	}
	file := filepath.Join(t.TempDir(), "metadata")
	Export(t, dev, file)
	defer os.Remove(file) // a test may make thousands
	out, err := exec.Command(path, append(args, file)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// ThinCheck runs thin_check on a file, if it is installed.
func ThinCheck(file string) ([]byte, error) {
	path, err := exec.LookPath("/usr/sbin/thin_check")
	if err != nil {
		return nil, nil
	}
	return exec.Command(path, file).CombinedOutput()
}

// Export writes a disk to a file.
func Export(t *testing.T, dev blk.Device, file string) {
	t.Helper()
	p := make([]byte, dev.Limits().Size*blk.SectorSize)
	ok(t, blk.ReadSectors(env.Real(), dev, p, 0))
	ok(t, os.WriteFile(file, p, 0o600))
}

// Insert maps a block to a newly allocated data block.
func (p *Pool) Insert(t *thinmeta.Thin, block uint64) error {
	b, err := p.M.AllocDataBlock()
	if err != nil {
		return err
	}
	if err := t.Insert(block, b); err != nil {
		return err
	}
	p.Now.Devs[t.ID()][block] = b
	return nil
}

func (p *Pool) Thin(id uint32) *thinmeta.Thin {
	p.T.Helper()
	th, err := p.M.OpenThin(id)
	ok(p.T, err)
	return th
}

// CreateThin, CreateSnap and Delete change the metadata and the model.
func (p *Pool) CreateThin(id uint32) {
	p.T.Helper()
	ok(p.T, p.M.CreateThin(id))
	p.Now.Devs[id] = map[uint64]uint64{}
}

func (p *Pool) CreateSnap(id, origin uint32) {
	p.T.Helper()
	ok(p.T, p.M.CreateSnap(id, origin))
	p.Now.Devs[id] = maps.Clone(p.Now.Devs[origin])
}

func (p *Pool) Delete(id uint32) {
	p.T.Helper()
	ok(p.T, p.M.DeleteThin(id))
	delete(p.Now.Devs, id)
}

// Step makes one random change or look-up.
func (p *Pool) Step(rng *rand.Rand, next *uint64, i int) {
	p.T.Helper()
	ids := slices.Sorted(maps.Keys(p.Now.Devs))
	pick := func() uint32 { return ids[rng.IntN(len(ids))] }
	fresh := uint32(rng.IntN(1 << 24))
	op := rng.IntN(1000)
	switch {
	case len(ids) == 0 || op < 5 && len(ids) < 12:
		p.CreateThin(fresh)
	case op < 10 && len(ids) < 12:
		p.CreateSnap(fresh, pick())
	case op < 15 && len(ids) > 3:
		p.Delete(pick())
	case op < 700:
		id := pick()
		th := p.Thin(id)
		k := rng.Uint64N(5000)
		if op < 400 {
			*next++
			k = *next % 5000
		}
		if err := p.Insert(th, k); err != nil && err != syscall.ENOSPC {
			p.T.Fatalf("op %d: %v", i, err)
		}
		th.Close()
	case op < 760:
		id := pick()
		th := p.Thin(id)
		b := rng.Uint64N(5000)
		e := b + rng.Uint64N(300)
		ok(p.T, th.RemoveRange(b, e))
		maps.DeleteFunc(p.Now.Devs[id], func(k, _ uint64) bool { return k >= b && k < e })
		if th.Mapped() != uint64(len(p.Now.Devs[id])) {
			p.T.Fatalf("op %d: %d mapped, want %d", i, th.Mapped(), len(p.Now.Devs[id]))
		}
		th.Close()
	case op < 770:
		p.Commit()
	case op < 772:
		ok(p.T, p.M.Abort())
		p.Now = p.Old.Clone()
	case op < 774:
		ok(p.T, p.M.Close())
		p.Old = p.Now.Clone()
		p.Open()
	case op < 777:
		p.Now.Size += rng.Uint64N(100)
		ok(p.T, p.M.ResizeData(p.Now.Size))
	case op < 779 && p.M.MetadataBlocks() < 20000:
		blocks := p.M.MetadataBlocks() + rng.Uint64N(40)
		p.Dev.Resize(blocks * pdata.BlockSectors)
		ok(p.T, p.M.ResizeMetadata(blocks))
	case op < 782:
		p.snapOp()
	default:
		id := pick()
		th := p.Thin(id)
		k := rng.Uint64N(5000)
		got, err := th.Find(k)
		if b, had := p.Now.Devs[id][k]; had && (err != nil || got.Block != b) || !had && err != syscall.ENODATA {
			p.T.Fatalf("op %d: find %d: %v, %v", i, k, got, err)
		}
		if err == nil {
			refs := refsOf(p, got.Block)
			if refs > 1 && !got.Shared && p.M.HeldRoot() == 0 {
				p.T.Fatalf("op %d: block %d has %d references and is not shared", i, got.Block, refs)
			}
		}
		if fast, ferr := th.TryFind(k); ferr != syscall.EAGAIN && (ferr != err || fast != got) {
			p.T.Fatalf("op %d: TryFind %d: %v, %v; Find: %v, %v", i, k, fast, ferr, got, err)
		}
		th.Close()
	}
}

func (p *Pool) snapOp() {
	p.T.Helper()
	if p.M.HeldRoot() == 0 {
		ok(p.T, p.M.ReserveSnap())
		p.Old = p.Now.Clone()
	} else {
		ok(p.T, p.M.ReleaseSnap())
	}
}

// Load returns a disk with the content p.
func Load(t testing.TB, p []byte) *memdev.Device {
	t.Helper()
	dev := memdev.New(uint64(len(p))/blk.SectorSize, memdev.Volatile)
	ok(t, blk.WriteSectors(env.Real(), dev, p, 0, 0))
	return dev
}

func refsOf(p *Pool, block uint64) uint32 {
	p.T.Helper()
	n, err := p.M.DataRefs(block)
	ok(p.T, err)
	return n
}
