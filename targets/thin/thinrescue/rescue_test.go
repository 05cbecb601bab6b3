package thinrescue_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thinrescue"
)

var (
	damages  = flag.Int("damages", 100, "damaged metadata images to rescue")
	first    = flag.Int("first", 0, "the number of the first of them")
	compared = flag.Int("compared", 20, "every so manieth of them is given to thin_repair, too")
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// busyPool is a pool that random operations have been through, several commits long.
func busyPool(t *testing.T, seed uint64, ops int) *metatest.Pool {
	p := metatest.New(t, 1024, 60000, 0)
	rng := rand.New(rand.NewPCG(seed, 3))
	next := uint64(0)
	for i := range ops {
		p.Step(rng, &next, i)
	}
	if p.M.HeldRoot() != 0 && seed%2 == 0 {
		ok(t, p.M.ReleaseSnap())
	}
	p.Commit()
	return p
}

// used are the metadata blocks that a pool uses.
func used(p *metatest.Pool) (list []uint64) {
	for nr := range p.M.MetadataBlocks() {
		if must(p.M.MetadataRefs(nr)) > 0 {
			list = append(list, nr)
		}
	}
	return list
}

// guarded refuses to be written to, and cannot read some blocks.
type guarded struct {
	blk.Device
	t          *testing.T
	unreadable map[uint64]bool
}

func (g guarded) Submit(b *blk.Bio) {
	if b.Op != blk.Read {
		g.t.Errorf("%v to metadata that is only read", b)
	}
	for nr := b.Sector / pdata.BlockSectors; nr*pdata.BlockSectors < b.EndSector(); nr++ {
		if g.unreadable[nr] {
			b.Complete(blk.IOErr)
			return
		}
	}
	g.Device.Submit(b)
}

// found is the mappings of a volume, apart by whether they were found by search, and the
// blocks that are lost.
type found struct {
	sure, searched map[uint64]uint64
	holes          []thinrescue.Range // that are sure
}

// read goes through a volume run by run.
func read(t *testing.T, v *thinrescue.Volume) found {
	f := found{map[uint64]uint64{}, map[uint64]uint64{}, nil}
	const end = 1 << 20
	for at := uint64(0); at < end; {
		r := v.Find(at, end)
		if r.Thin != at || r.Len == 0 || at+r.Len > end {
			t.Fatalf("volume %s: run %+v at %d", v.Name(), r, at)
		}
		switch {
		case r.State == thinrescue.Mapped && r.Found:
			for i := range r.Len {
				f.searched[at+i] = r.Data + i
			}
		case r.State == thinrescue.Mapped:
			for i := range r.Len {
				f.sure[at+i] = r.Data + i
			}
		case r.State == thinrescue.Hole && !r.Found:
			f.holes = append(f.holes, thinrescue.Range{Begin: at, End: at + r.Len})
		}
		at += r.Len
	}
	return f
}

// damage damages some of the blocks of a disk, and returns what was done. With nonsense
// the checksums are right again, as if a program had written that.
func damage(rng *rand.Rand, t *testing.T, dev blk.Device, blocks []uint64, unreadable map[uint64]bool, nonsense bool) string {
	var done []string
	for range 1 + rng.IntN(3) {
		nr := blocks[rng.IntN(len(blocks))]
		if rng.IntN(4) == 0 {
			nr = 0
		}
		p := make([]byte, pdata.BlockSize)
		ok(t, blk.ReadSectors(env.Real(), dev, p, nr*pdata.BlockSectors))
		kind := kindOf(p, nr)
		how := rng.IntN(4)
		switch how {
		case 0:
			p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
		case 1:
			clear(p)
		case 2:
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
		case 3:
			unreadable[nr] = true
		}
		if nonsense && kind != nil && how < 3 {
			p[16+rng.IntN(400)] = byte(rng.Uint32())
			kind.Seal(p, nr)
		}
		done = append(done, fmt.Sprint(nr, ":", how))
		ok(t, blk.WriteSectors(env.Real(), dev, p, nr*pdata.BlockSectors, 0))
	}
	return strings.Join(done, " ")
}

func kindOf(p []byte, nr uint64) *pdata.Kind {
	for _, k := range append(pdata.Kinds(), thinmeta.KindSuper) {
		if k.Verify(p, nr) == "" {
			return k
		}
	}
	return nil
}

// perPool is how many images are of one pool.
const perPool = 50

// TestDamage damages metadata at random. What is claimed to be certain is what the
// volumes have, and no less is recovered than thin_repair recovers. Nonsense with right
// checksums must do no harm.
func TestDamage(t *testing.T) {
	var rng *rand.Rand
	var p *metatest.Pool
	var blocks []uint64
	var sum score
	for i := *first / perPool * perPool; i < *first+metatest.Scaled(*damages); i++ {
		if i%perPool == 0 {
			rng = rand.New(rand.NewPCG(*metatest.Seed+uint64(i), 9))
			p = busyPool(t, *metatest.Seed+uint64(i), 1500+rng.IntN(3000))
			blocks = used(p)
		}
		dev := p.Dev.Clone()
		bad := map[uint64]bool{}
		nonsense := rng.IntN(4) == 0
		what := damage(rng, t, dev, blocks, bad, nonsense)
		if i < *first {
			continue
		}
		pool, err := thinrescue.Examine(env.Real(), guarded{dev, t, bad}, thinrescue.Options{BlockSectors: 128, DataSectors: p.Now.Size * 128})
		ok(t, err)
		if nonsense {
			for _, v := range pool.Volumes {
				read(t, v)
			}
			continue
		}
		var other map[uint32]map[uint64]uint64
		if i%*compared == 0 {
			for nr := range bad { // thin_repair finds zeroes there
				ok(t, blk.WriteSectors(env.Real(), dev, make([]byte, pdata.BlockSize), nr*pdata.BlockSectors, 0))
			}
			other = theirs(t, dev, p)
		}
		sum.add(judge(t, fmt.Sprintf("damage %d (%s)", i, what), pool, p.Now, other))
		if t.Failed() {
			return
		}
	}
	t.Logf("of %d mappings %d certain, %d right by search, %d wrong by search; thin_repair %d right, %d wrong", sum.all, sum.sure, sum.searched, sum.wrong, sum.theirs, sum.theirsWrong)
}

type score struct{ all, sure, searched, wrong, theirs, theirsWrong int }

func (s *score) add(o score) {
	s.all, s.sure, s.searched, s.wrong = s.all+o.all, s.sure+o.sure, s.searched+o.searched, s.wrong+o.wrong
	s.theirs, s.theirsWrong = s.theirs+o.theirs, s.theirsWrong+o.theirsWrong
}

// judge compares what was found with what there was, and with what thin_repair made.
func judge(t *testing.T, what string, pool *thinrescue.Pool, want metatest.State, theirs map[uint32]map[uint64]uint64) (s score) {
	t.Helper()
	for id, m := range want.Devs {
		s.all += len(m)
		f := found{}
		if v, err := pool.Volume(fmt.Sprint(id)); err == nil {
			f = read(t, v)
		}
		for k, b := range f.sure {
			if !has(m, k, b) {
				t.Errorf("%s: volume %d: block %d is at %d for certain, but it is at %d", what, id, k, b, m[k])
			}
		}
		for _, h := range f.holes {
			for k := range m {
				if k >= h.Begin && k < h.End {
					t.Errorf("%s: volume %d: block %d is a hole for certain, but it is mapped", what, id, k)
				}
			}
		}
		right := maps.Clone(f.sure)
		for k, b := range f.searched {
			if has(m, k, b) {
				s.searched++
				right[k] = b
			} else {
				s.wrong++
			}
		}
		s.sure += len(f.sure)
		for k, b := range theirs[id] {
			if has(m, k, b) && !has(right, k, b) {
				t.Errorf("%s: volume %d: thin_repair has block %d (%d of %d are right), which was not found (%d right); %s", what, id, k, len(theirs[id]), len(m), len(right), pool.Source)
				break
			} else if has(m, k, b) {
				s.theirs++
			} else {
				s.theirsWrong++
			}
		}
	}
	return s
}

func has(m map[uint64]uint64, k, b uint64) bool {
	at, mapped := m[k]
	return mapped && at == b
}

// theirs are the mappings that thin_repair recovers.
func theirs(t *testing.T, dev *memdev.Device, p *metatest.Pool) map[uint32]map[uint64]uint64 {
	path, err := exec.LookPath("/usr/sbin/thin_repair")
	if err != nil {
		return nil
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	metatest.Export(t, dev, in)
	ok(t, os.WriteFile(out, make([]byte, 2048*pdata.BlockSize), 0o600))
	defer os.RemoveAll(dir)
	args := []string{"-i", in, "-o", out}
	if _, err := thinmeta.ReadSuper(env.Real(), dev); err != nil {
		args = append(args, "--transaction-id", "1", "--data-block-size", "128", "--nr-data-blocks", fmt.Sprint(p.Now.Size))
	}
	if exec.Command(path, args...).Run() != nil {
		return nil
	}
	m, err := thinmeta.Open(env.Real(), metatest.Load(t, must(os.ReadFile(out))), thinmeta.Options{ReadOnly: true})
	if err != nil {
		return nil
	}
	all := map[uint32]map[uint64]uint64{}
	for id := range p.Now.Devs {
		all[id], _ = metatest.Mappings(m, id)
	}
	return all
}

// all checks that each volume is found with all its mappings.
func all(t *testing.T, pool *thinrescue.Pool, want metatest.State, certain bool) {
	t.Helper()
	for id, m := range want.Devs {
		v, err := pool.Volume(fmt.Sprint(id))
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		f := read(t, v)
		got := f.sure
		if !certain {
			got = f.searched
		}
		if !maps.Equal(got, m) || v.Mapped != uint64(len(m)) || v.Gaps != 0 || certain != v.Whole() && len(m) > 0 {
			t.Errorf("volume %d: %d certain, %d by search, %d counted, %d gaps, want %d", id, len(f.sure), len(f.searched), v.Mapped, v.Gaps, len(m))
		}
	}
}

// spoiled returns a copy of a disk in which blocks are destroyed.
func spoiled(t *testing.T, dev *memdev.Device, blocks ...uint64) *memdev.Device {
	t.Helper()
	c := dev.Clone()
	for _, nr := range blocks {
		ok(t, blk.WriteSectors(env.Real(), c, bytes.Repeat([]byte{0x5a}, pdata.BlockSize), nr*pdata.BlockSectors, 0))
	}
	return c
}

// TestWhatIsLost destroys what leads to the volumes, of which all is found nevertheless.
func TestWhatIsLost(t *testing.T) {
	for seed := range uint64(4) {
		p := busyPool(t, 40+seed, 1500)
		s := must(thinmeta.ReadSuper(env.Real(), p.Dev))
		maps := []uint64{s.Metadata.BitmapRoot, s.Metadata.RefRoot, s.Data.BitmapRoot, s.Data.RefRoot}
		for name, c := range map[string]struct {
			lost    []uint64
			source  thinrescue.Source
			certain bool
		}{
			"nothing":                   {nil, thinrescue.BySuperblock, true},
			"space maps":                {maps, thinrescue.BySuperblock, true},
			"details":                   {[]uint64{s.DetailsRoot}, thinrescue.BySuperblock, true},
			"superblock":                {[]uint64{0}, thinrescue.BySearch, false},
			"superblock and space maps": {append(maps, 0), thinrescue.BySearch, false},
		} {
			pool, err := thinrescue.Examine(env.Real(), guarded{spoiled(t, p.Dev, c.lost...), t, nil}, thinrescue.Options{BlockSectors: 128})
			ok(t, err)
			if pool.Source != c.source {
				t.Errorf("%s: found by %s", name, pool.Source)
			}
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) { all(t, pool, p.Now, c.certain) })
		}
	}
}

// TestLostSuperblock: of all states of a pool whose nodes are still there, the last one is
// found, whatever its volumes are, and even if snapshots that were newer have been deleted.
func TestLostSuperblock(t *testing.T) {
	n := uint64(400)
	if testing.Short() {
		n = 20 // among them 13
	}
	for seed := range n {
		p := busyPool(t, *metatest.Seed+seed, 1500+int(seed%7)*500)
		pool, err := thinrescue.Examine(env.Real(), spoiled(t, p.Dev, 0), thinrescue.Options{BlockSectors: 128})
		ok(t, err)
		if all(t, pool, p.Now, false); t.Failed() {
			t.Fatalf("seed %d", *metatest.Seed+seed)
		}
	}
}

// TestFlippedSuperblock: a superblock with a wrong checksum leads to trees that fit, and
// says how large blocks are.
func TestFlippedSuperblock(t *testing.T) {
	p := busyPool(t, 50, 1000)
	dev := p.Dev.Clone()
	b := make([]byte, pdata.BlockSize)
	ok(t, blk.ReadSectors(env.Real(), dev, b, 0))
	b[3000] ^= 1
	ok(t, blk.WriteSectors(env.Real(), dev, b, 0, 0))
	pool, err := thinrescue.Examine(env.Real(), dev, thinrescue.Options{})
	ok(t, err)
	if pool.Source != thinrescue.ByDamaged || pool.BlockSectors != 128 {
		t.Errorf("source %s, blocks of %d sectors", pool.Source, pool.BlockSectors)
	}
	all(t, pool, p.Now, false)
	fresh := metatest.New(t, 64, 100, 0)
	if _, err := thinrescue.Examine(env.Real(), spoiled(t, fresh.Dev, 0), thinrescue.Options{}); err == nil {
		t.Error("the size of blocks was guessed")
	}
}

// TestInnerNodes destroys the inner nodes of a volume, one at a time and all at once. Its
// leaves are found; as it has as many mappings as its details say, they are certain.
func TestInnerNodes(t *testing.T) {
	p := metatest.New(t, 4096, 90000, 0)
	p.CreateThin(1)
	th := p.Thin(1)
	for i := range uint64(80000) {
		ok(t, p.Insert(th, i*7919%100003))
		if i%5000 == 0 {
			p.Commit()
		}
	}
	th.Close()
	p.CreateSnap(2, 1)
	p.Commit()
	var inner []uint64
	bm := pdata.NewBlockManager(env.Real(), p.Dev, 0)
	roots := map[uint64]bool{}
	ok(t, pdata.WalkLeaves(bm, must(thinmeta.ReadSuper(env.Real(), p.Dev)).MappingRoot, 8, nil, func(l pdata.Leaf) error {
		roots[binary.LittleEndian.Uint64(l.Value(0))] = true
		return nil
	}))
	for root := range roots {
		n := must(pdata.ReadNode(bm, root))
		inner = append(inner, root)
		for i := range n.Len() {
			if c := must(pdata.ReadNode(bm, binary.LittleEndian.Uint64(n.Value(i)))); c.Internal() {
				inner = append(inner, c.Nr())
			}
		}
	}
	if len(inner) < 3 {
		t.Fatalf("only %d inner nodes", len(inner))
	}
	for _, nr := range inner {
		pool, err := thinrescue.Examine(env.Real(), spoiled(t, p.Dev, nr), thinrescue.Options{})
		ok(t, err)
		all(t, pool, p.Now, true)
	}
	pool, err := thinrescue.Examine(env.Real(), spoiled(t, p.Dev, inner...), thinrescue.Options{})
	ok(t, err)
	all(t, pool, p.Now, true)
}
