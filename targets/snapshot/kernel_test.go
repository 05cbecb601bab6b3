package snapshot

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/test/kernel"
)

var (
	kernelSeeds = flag.Int("kernelseeds", 2, "seeds of TestKernelStores")
	kernelFirst = flag.Uint64("kernelfirst", 0, "the first of them")
)

const (
	crossOrigin = 1024 // sectors
	crossCow    = 4096
	crossBatch  = 8 // stores in one boot
)

// cross is a store that udm and the kernel work on in turn.
type cross struct {
	n            int // in its batch
	rng          *rand.Rand
	kind         string
	chunk        uint64
	merge        int // 0: udm merges at the end, 1: the kernel, 2: udm begins and the kernel ends
	kernelFirst  bool
	o, c         *memdev.Device
	snap, origin []byte // what they must hold
	info         string // status as the last one saw it
	next         uint64 // seed of the next write
}

func newCross(n int, seed uint64, kind string) *cross {
	rng := rand.New(rand.NewPCG(seed, uint64(len(kind))))
	x := &cross{n: n, rng: rng, kind: kind, chunk: 4 << rng.IntN(4), merge: int(seed % 3),
		kernelFirst: rng.IntN(2) == 0, o: memdev.New(crossOrigin), c: memdev.New(crossCow), next: 2}
	x.snap = blktest.Pattern(0, crossOrigin, 1)
	x.origin = bytes.Clone(x.snap)
	_ = blk.WriteSectors(env.Real(), x.o, x.snap, 0, 0)
	return x
}

// change draws a write to the snapshot or the origin, notes it in the model and
// returns it.
func (x *cross) change() (toSnap bool, sector uint64, data []byte) {
	toSnap = x.rng.IntN(2) == 0
	sector = x.rng.Uint64N(crossOrigin - 64)
	n := 1 + x.rng.Uint64N(64)
	if x.rng.IntN(2) == 0 {
		sector, n = sector/x.chunk*x.chunk, x.chunk
	}
	data = blktest.Pattern(sector, n, x.next)
	x.next++
	model := x.origin
	if toSnap {
		model = x.snap
	}
	copy(model[sector*512:], data)
	return toSnap, sector, data
}

// udm opens the store, compares it with what the kernel left, and goes on.
func (x *cross) udm(t *testing.T, r *rig, last bool) {
	r.disks["O"], r.disks["C"] = x.o, x.c
	o := r.device("o", crossOrigin, "snapshot-origin O")
	s := r.device("s", crossOrigin, fmt.Sprintf("snapshot O C %s %d", x.kind, x.chunk))
	if x.info != "" {
		r.wantInfo("s", x.info)
	}
	x.compare(t, s, x.snap, "snapshot")
	x.compare(t, o, x.origin, "origin")
	for range 30 {
		toSnap, sector, data := x.change()
		d := o
		if toSnap {
			d = s
		}
		r.ok(blk.WriteSectors(r.e, d, data, sector, 0))
	}
	x.info = r.info("s")
	r.remove("o")
	if x.merge == 0 && last || x.merge == 2 && !last {
		x.mergeHere(t, r, last)
	} else {
		r.remove("s")
	}
}

// mergeHere merges to the end, or stops part of the way.
func (x *cross) mergeHere(t *testing.T, r *rig, toEnd bool) {
	r.toMerge(crossOrigin, fmt.Sprintf("O C %s %d", x.kind, x.chunk))
	if toEnd {
		r.run()
		r.wantInfo("m", fmt.Sprintf("%d/%d %[1]d", 2*x.chunk, crossCow))
		x.compare(t, x.o, x.snap, "merged origin")
	} else {
		for range 20 {
			sim(r).Step()
		}
		r.suspend("m")
	}
	x.info = r.info("m")
	r.remove("m")
	x.kernelFirst = false
	x.origin = nil // part of it is the snapshot's
}

func (x *cross) compare(t *testing.T, d blk.Device, want []byte, what string) {
	t.Helper()
	got := make([]byte, len(want))
	if err := blk.ReadSectors(env.Real(), d, got, 0); err != nil {
		t.Fatal(err)
	}
	x.same(t, got, want, what)
}

func (x *cross) same(t *testing.T, got, want []byte, what string) {
	t.Helper()
	if want == nil || bytes.Equal(got, want) {
		return
	}
	for i := 0; i < len(got); i += 512 {
		if !bytes.Equal(got[i:i+512], want[i:i+512]) {
			t.Fatalf("store %d (%s %d): %s differs at sector %d", x.n, x.kind, x.chunk, what, i/512)
		}
	}
}

// script makes the kernel read the store, change it, read it again and, if it is the
// kernel's turn, merge it. What it writes is in a file of $OUT.
func (x *cross) script(t *testing.T, dir string, merge bool) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	o, c, n := 2*x.n, 2*x.n+1, x.n
	if n == 0 && merge {
		p(`[ "$(blkid -p -s TYPE -o value $D%d)" = DM_snapshot_cow ]`, c)
	}
	if x.origin != nil {
		p(`dmsetup create o%d --table "0 %d snapshot-origin $D%d"`, n, crossOrigin, o)
		p(`dmsetup suspend o%d`, n)
	}
	p(`dmsetup create s%d --table "0 %d snapshot $D%d $D%d %s %d"`, n, crossOrigin, o, c, x.kind, x.chunk)
	p(`dd if=/dev/mapper/s%d of=$OUT/before%d bs=512k iflag=direct status=none`, n, n)
	p(`dmsetup status s%d | cut -d' ' -f4- >$OUT/first%d`, n, n)
	if x.origin != nil {
		p(`dmsetup resume o%d`, n)
		x.scriptChanges(t, dir, p)
		p(`dmsetup remove o%d`, n)
	}
	p(`dmsetup status s%d | cut -d' ' -f4- >$OUT/last%d`, n, n)
	if merge {
		p(`dmsetup reload s%d --table "0 %d snapshot-merge $D%d $D%d %s %d"`, n, crossOrigin, o, c, x.kind, x.chunk)
		p(`dmsetup suspend s%d; dmsetup resume s%d`, n, n)
		p(`while set -- $(dmsetup status s%d); do [ "${4%%%%/*}" = "$5" ] && break; sleep 0.1; done`, n)
		p(`dmsetup status s%d | cut -d' ' -f4- >$OUT/last%d`, n, n)
	}
	p(`dmsetup remove s%d`, n)
	return b.String()
}

func (x *cross) scriptChanges(t *testing.T, dir string, p func(string, ...any)) {
	var all []byte
	for range 6 {
		toSnap, sector, data := x.change()
		dev := "o"
		if toSnap {
			dev = "s"
		}
		p(`dd if=$OUT/data%d of=/dev/mapper/%s%d bs=512 skip=%d count=%d seek=%d oflag=direct conv=notrunc status=none`,
			x.n, dev, x.n, len(all)/512, len(data)/512, sector)
		all = append(all, data...)
	}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("data%d", x.n)), all, 0o600); err != nil {
		t.Fatal(err)
	}
}

// boot runs the kernel on all stores of a batch.
func boot(t *testing.T, xs []*cross, last bool) {
	dir := t.TempDir()
	var disks []string
	var script strings.Builder
	befores := make([][]byte, len(xs))
	for i, x := range xs {
		befores[i] = bytes.Clone(x.snap)
		disks = append(disks, save(t, x.o), save(t, x.c))
		script.WriteString(x.script(t, dir, last && x.merge > 0))
	}
	kernel.Boot(t, kernel.Options{Disks: disks, Script: script.String(), Dir: dir})
	file := func(name string, x *cross) []byte {
		p, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(name, x.n)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for i, x := range xs {
		x.same(t, file("before", x), befores[i], "what the kernel read")
		if got := strings.TrimSpace(string(file("first", x))); x.info != "" && got != x.info {
			t.Errorf("store %d: the kernel's status is %q, udm's %q", x.n, got, x.info)
		}
		x.info = strings.TrimSpace(string(file("last", x)))
		load(t, x.o, disks[2*i])
		load(t, x.c, disks[2*i+1])
		if last && x.merge > 0 {
			x.compare(t, x.o, x.snap, "origin that the kernel merged")
		} else {
			x.compare(t, x.o, x.origin, "origin")
		}
	}
}

func save(t *testing.T, d *memdev.Device) string {
	p := make([]byte, d.Limits().Size*512)
	if err := blk.ReadSectors(env.Real(), d, p, 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "disk")
	if err == nil {
		_, err = f.Write(p)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func load(t *testing.T, d *memdev.Device, file string) {
	p, err := os.ReadFile(file)
	if err == nil {
		err = blk.WriteSectors(env.Real(), d, p, 0, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestKernelStores has udm and the kernel write the same stores in turn.
func TestKernelStores(t *testing.T) {
	kernel.Need(t)
	var xs []*cross
	for i := range uint64(*kernelSeeds) {
		seed := *kernelFirst + i
		xs = append(xs, newCross(0, seed, "P"), newCross(0, seed, "PO"))
	}
	for ; len(xs) > 0; xs = xs[min(crossBatch, len(xs)):] {
		batch := xs[:min(crossBatch, len(xs))]
		for i, x := range batch {
			x.n = i
		}
		crossBoot(t, batch)
	}
}

func crossBoot(t *testing.T, xs []*cross) {
	each := func(do func(x *cross, r *rig)) {
		for _, x := range xs {
			r := newRig(t, stepped(), disks{})
			do(x, r)
			r.ok(r.c.Close())
			if err := checkStore(x.c); err != nil {
				t.Fatalf("store %d: %v", x.n, err)
			}
		}
	}
	each(func(x *cross, r *rig) {
		if !x.kernelFirst {
			x.udm(t, r, false)
			x.fresh()
		}
	})
	boot(t, xs, false)
	each(func(x *cross, r *rig) { x.udm(t, r, false) })
	boot(t, xs, true)
	each(func(x *cross, r *rig) {
		if x.merge == 0 {
			x.udm(t, r, true)
		}
	})
}

// fresh accounts for the part that the first round has merged already: it sets the
// model of the origin to what the origin holds.
func (x *cross) fresh() {
	if x.origin == nil {
		x.origin = make([]byte, crossOrigin*512)
		_ = blk.ReadSectors(env.Real(), x.o, x.origin, 0)
	}
}
