//go:build linux

package thin

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/test/kernel"
)

var (
	kernelSeeds = flag.Int("kernelseeds", 2, "seeds of TestKernel")
	kernelFirst = flag.Int("kernelfirst", 0, "the first of them")
)

// TestKernel moves pools between udm and the real kernel and back. Every other
// pool is made by udm, the others by the kernel. Each side changes it at random and
// reports the content of every volume and the status lines of a fresh start; the other
// must read the same.
func TestKernel(t *testing.T) {
	kernel.Need(t)
	const atOnce = 5 // pools in one boot
	end := *kernelFirst + *kernelSeeds
	for first := *kernelFirst; first < end; first += atOnce {
		var ps []*traveller
		for seed := first; seed < min(first+atOnce, end); seed++ {
			ps = append(ps, newTraveller(t, uint64(seed)))
		}
		bootAll(t, ps, true)
		for _, p := range ps {
			p.atHome()
		}
		bootAll(t, ps, false)
	}
}

// traveller is a pool in files.
type traveller struct {
	testing.TB
	seed  uint64
	dir   string
	r     *rand.Rand
	vols  map[int]bool      // true: has the external origin
	sums  map[int]string    // SHA-256 of the content
	lines map[string]string // status lines of a fresh start, by device
	next  int
}

const (
	kernelMeta, kernelData  = 4096, 96 * bs
	kernelBlocks, volBlocks = 96, 12
)

func newTraveller(t testing.TB, seed uint64) *traveller {
	p := &traveller{TB: t, seed: seed, dir: t.TempDir(), r: rand.New(rand.NewPCG(seed, 9)), vols: map[int]bool{},
		sums: map[int]string{}, lines: map[string]string{}}
	w := newBusyPool(t, env.NewStepped())
	w.features = noPassdown
	w.meta, w.data = memdev.New(kernelMeta), memdev.New(kernelData)
	if seed%2 == 0 {
		w.must(w.start())
		p.change(w)
		p.note(w)
	} else {
		p.vols[0], p.next = false, 1
	}
	p.save("m", w.meta)
	p.save("d", w.data)
	p.save("o", w.origin)
	return p
}

// unpack is a pool with the pool's disks.
func (p *traveller) unpack() *busyPool {
	w := newBusyPool(p.TB, env.NewStepped())
	w.features = noPassdown
	w.meta, w.data, w.origin = p.load("m"), p.load("d"), p.load("o")
	return w
}

// noPassdown: the disks of the kernel's machine do not take discards of whole
// blocks, so that its pools do not pass them down.
var noPassdown = []string{"no_discard_passdown"}

func (p *traveller) path(disk string) string { return filepath.Join(p.dir, disk) }

func (p *traveller) save(name string, d *memdev.Device) {
	b := make([]byte, d.Limits().Size*blk.SectorSize)
	p.must(blk.ReadSectors(env.Real(), d, b, 0))
	p.must(os.WriteFile(p.path(name), b, 0o600))
}

func (p *traveller) load(name string) *memdev.Device {
	b, err := os.ReadFile(p.path(name))
	p.must(err)
	d := memdev.New(uint64(len(b)) / blk.SectorSize)
	p.must(blk.WriteSectors(env.Real(), d, b, 0, 0))
	return d
}

func (p *traveller) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// change does random things to the pool with udm.
func (p *traveller) change(w *busyPool) {
	r := p.r
	for range 2 + r.IntN(3) {
		p.newVolume(w)
	}
	for range 150 {
		ids := slices.Sorted(maps.Keys(w.vols))
		v := w.vols[ids[r.IntN(len(ids))]]
		switch r.IntN(14) {
		case 0:
			p.newVolume(w)
		case 1:
			if len(ids) > 2 {
				p.must(w.remove(v))
				delete(p.vols, v.id)
			}
		case 2, 3:
			b := r.Uint64N(volBlocks)
			w.discard(v, b, 1+r.Uint64N(volBlocks-b))
		case 4:
			w.flush(v)
		case 5, 6:
			w.write(v, r.Uint64N(volBlocks)*bs, bs, 0)
		default:
			w.write(v, r.Uint64N(volBlocks*bs-8), 8, 0)
		}
	}
}

func (p *traveller) newVolume(w *busyPool) {
	if len(p.vols) >= 6 {
		return
	}
	var origin *vol
	if ids := slices.Sorted(maps.Keys(w.vols)); len(ids) > 0 && p.r.IntN(2) == 0 {
		origin = w.vols[ids[p.r.IntN(len(ids))]]
	}
	v, err := w.create(p.next, p.r.IntN(2) == 0, origin)
	p.must(err)
	p.vols[p.next] = v.external
	p.next++
}

// note closes the pool, opens it again and records its state.
func (p *traveller) note(w *busyPool) {
	w.stop()
	n := w.again(p.TB, w.meta, w.data)
	n.vols, n.features = map[int]*vol{}, w.features
	p.must(n.start())
	p.lines["pool"] = line(n.pool)
	for id, ext := range p.vols {
		v := &vol{id: id, external: ext}
		p.must(n.open(v))
		b := make([]byte, volBlocks*bs*blk.SectorSize)
		p.must(blk.ReadSectors(n.e, v.dev, b, 0))
		p.sums[id] = fmt.Sprintf("%x", sha256.Sum256(b))
		p.lines[fmt.Sprintf("thin%d", id)] = line(v.dev)
	}
	n.stop()
	n.checkMetadata(false, false)
}

func line(d *dm.Device) string {
	return strings.TrimSuffix(dm.FormatTable(d.Lines(dm.Info, false, 0)), "\n")
}

// atHome compares the pool with the kernel's report, then changes it with udm.
func (p *traveller) atHome() {
	p.Helper()
	if out, err := exec.Command("thin_check", p.path("m")).CombinedOutput(); err != nil {
		p.Fatalf("seed %d: thin_check: %v\n%s", p.seed, err, out)
	}
	w := p.unpack()
	p.must(w.start()) // note stops it
	sums, lines := maps.Clone(p.sums), maps.Clone(p.lines)
	p.note(w)
	p.compare("udm", lines, p.lines, sums, p.sums)
	w = p.unpack()
	p.must(w.start())
	for _, id := range slices.Sorted(maps.Keys(p.vols)) {
		v := &vol{id: id, external: p.vols[id], model: blktest.NewModel(volBlocks * bs)}
		p.must(w.open(v))
		w.vols[id] = v
	}
	p.change(w)
	p.note(w)
	p.save("m", w.meta)
	p.save("d", w.data)
	if out, err := exec.Command("thin_check", p.path("m")).CombinedOutput(); err != nil {
		p.Fatalf("seed %d: thin_check after udm: %v\n%s", p.seed, err, out)
	}
}

func (p *traveller) compare(who string, wantLines, gotLines map[string]string, wantSums, gotSums map[int]string) {
	p.Helper()
	if !maps.Equal(wantLines, gotLines) {
		p.Errorf("seed %d: %s tells\n%v\nwant\n%v", p.seed, who, gotLines, wantLines)
	}
	if !maps.Equal(wantSums, gotSums) {
		p.Errorf("seed %d: %s reads\n%v\nwant\n%v", p.seed, who, gotSums, wantSums)
	}
}

// bootAll lets the kernel compare and, if change is set, change all pools.
func bootAll(t *testing.T, ps []*traveller, change bool) {
	t.Helper()
	var disks []string
	var script strings.Builder
	script.WriteString(scriptHead)
	for i, p := range ps {
		disks = append(disks, p.path("m"), p.path("d"), p.path("o"))
		p.script(&script, i, change)
	}
	res := kernel.Boot(t, kernel.Options{Disks: disks, Script: script.String()})
	for i, p := range ps {
		p.hear(res, i, change)
	}
}

// scriptHead defines the functions of the commands below. Each process takes tens of
// milliseconds in the guest.
const scriptHead = `
start() { # pool meta data
	dmsetup create pool$1 --table "0 12288 thin-pool $2 $3 128 0"
}
open() { # pool id origin
	dmsetup create thin$1_$2 --table "0 1536 thin /dev/mapper/pool$1 $2 ${3:-}"
}
tell() { # pool tag ids: the status lines, and the content in files
	dmsetup status | while IFS= read -r line; do echo "$2 $1 $line."; done
	for id in $3; do dd if=/dev/mapper/thin$1_$id of=$OUT/$2_$1_$id bs=768k status=none; done
}
put() { # pool id block count: of 4 KiB
	dd if=/dev/urandom of=/dev/mapper/thin$1_$2 bs=4k seek=$3 count=$4 oflag=direct conv=notrunc status=none
}
`

func (p *traveller) script(b *strings.Builder, i int, change bool) {
	sh := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	dev := func(k int) string { return fmt.Sprintf("$D%d", 3*i+k) }
	origin := func(id int) string {
		if p.vols[id] {
			return dev(2)
		}
		return ""
	}
	ids := func() []int { return slices.Sorted(maps.Keys(p.vols)) }
	fresh := func(tag string) {
		sh("start %d %s %s", i, dev(0), dev(1))
		for _, id := range ids() {
			sh("open %d %d %s", i, id, origin(id))
		}
		sh("tell %d %s '%s'", i, tag, strings.Trim(fmt.Sprint(ids()), "[]"))
	}
	closeAll := func() {
		sh("dmsetup remove%s", strings.Join(append([]string{""}, names(i, ids())...), fmt.Sprintf(" thin%d_", i)))
		sh("dmsetup remove pool%d", i)
	}
	if p.seed%2 == 1 && change {
		sh("start %d %s %s", i, dev(0), dev(1))
		sh("dmsetup message pool%d 0 create_thin 0", i)
		sh("open %d 0", i)
	} else {
		fresh("was")
	}
	if change {
		p.changeThere(sh, i, origin)
		closeAll()
		fresh("is")
	}
	closeAll()
}

func names(i int, ids []int) (ns []string) {
	for _, id := range ids {
		ns = append(ns, fmt.Sprint(id))
	}
	return ns
}

// changeThere writes the commands that change the pool in the kernel.
func (p *traveller) changeThere(sh func(string, ...any), i int, origin func(int) string) {
	r := p.r
	for range 40 {
		ids := slices.Sorted(maps.Keys(p.vols))
		id := ids[r.IntN(len(ids))]
		switch r.IntN(10) {
		case 0:
			if len(ids) < 6 {
				sh("dmsetup suspend thin%d_%d", i, id)
				sh("dmsetup message pool%d 0 create_snap %d %d", i, p.next, id)
				sh("dmsetup resume thin%d_%d", i, id)
				p.vols[p.next] = p.vols[id]
				sh("open %d %d %s", i, p.next, origin(p.next))
				p.next++
			}
		case 1:
			if len(ids) < 6 {
				sh("dmsetup message pool%d 0 create_thin %d", i, p.next)
				p.vols[p.next] = r.IntN(2) == 0
				sh("open %d %d %s", i, p.next, origin(p.next))
				p.next++
			}
		case 2:
			b := r.Uint64N(volBlocks)
			sh("blkdiscard -o %d -l %d /dev/mapper/thin%d_%d", b<<16, (1+r.Uint64N(volBlocks-b))<<16, i, id)
		case 3:
			sh("put %d %d %d 16", i, id, r.Uint64N(volBlocks)*16)
		default:
			sh("put %d %d %d %d", i, id, r.Uint64N(volBlocks*16-3), 1+r.Uint64N(3))
		}
	}
}

// hear reads the kernel's report on pool i.
func (p *traveller) hear(res kernel.Result, i int, change bool) {
	p.Helper()
	lines, sums := p.account(res, "was", i)
	if p.seed%2 == 0 || !change {
		for id := range p.sums {
			if _, ok := sums[id]; !ok {
				delete(p.sums, id)
			}
		}
		p.compare("the kernel", p.only(lines), lines, p.sums, sums)
	}
	if change {
		p.lines, p.sums = p.account(res, "is", i)
	}
}

// only is the part of udm's report about the devices in lines.
func (p *traveller) only(lines map[string]string) map[string]string {
	o := map[string]string{}
	for name := range lines {
		o[name] = p.lines[name]
	}
	return o
}

func (p *traveller) account(res kernel.Result, tag string, i int) (lines map[string]string, sums map[int]string) {
	p.Helper()
	lines, sums = map[string]string{}, map[int]string{}
	prefix := fmt.Sprintf("%s %d ", tag, i)
	for l := range strings.Lines(res.Output) {
		if rest, ok := strings.CutPrefix(l, prefix); ok {
			name, status, _ := strings.Cut(strings.TrimSuffix(rest, ".\n"), ": ")
			lines[strings.Replace(name, fmt.Sprintf("%d_", i), "", 1)] = status
		}
	}
	delete(lines, fmt.Sprintf("pool%d", i))
	for l := range strings.Lines(res.Output) {
		if rest, ok := strings.CutPrefix(l, prefix+fmt.Sprintf("pool%d: ", i)); ok {
			lines["pool"] = strings.TrimSuffix(rest, ".\n")
		}
	}
	for id := range p.vols {
		if b, err := os.ReadFile(filepath.Join(res.Dir, fmt.Sprintf("%s_%d_%d", tag, i, id))); err == nil {
			sums[id] = fmt.Sprintf("%x", sha256.Sum256(b))
		}
	}
	return lines, sums
}
