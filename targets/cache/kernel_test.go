//go:build linux

package cache_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/test/kernel"
)

var kernelSeeds = flag.Int("kernelseeds", 2, "caches that TestKernel moves between udm and the kernel")

// TestKernel has the kernel open caches on which udm has lost power, and udm such as the
// kernel has lost power on. Every third cache is the kernel's from the beginning; half of
// the kernel's are closed in order. Debian's cache_check accepts each of them.
func TestKernel(t *testing.T) {
	kernel.Need(t)
	const atOnce = 10 // caches in one boot
	for first := 0; first < *kernelSeeds; first += atOnce {
		dir := t.TempDir()
		var cs []*traveller
		var script strings.Builder
		for seed := first; seed < min(first+atOnce, *kernelSeeds); seed++ {
			c := newTraveller(t, dir, uint64(seed))
			c.script(&script)
			cs = append(cs, c)
		}
		kernel.Boot(t, kernel.Options{Dir: dir, Script: script.String()})
		for _, c := range cs {
			c.comeHome()
		}
	}
}

// traveller is a cache that goes from udm to the kernel and back.
type traveller struct {
	*world
	dir  string
	seed uint64
	rng  *rand.Rand
	puts []put
}

// put is a write of the kernel's.
type put struct{ sector, sectors, seed uint64 }

func newTraveller(t testing.TB, dir string, seed uint64) *traveller {
	r := rand.New(rand.NewPCG(seed, 5))
	features := []string{"2 metadata2 writeback smq 0", "1 writeback mq 2 migration_threshold 0", "2 writethrough metadata2 smq 0", "0 cleaner 0"}[r.IntN(4)]
	c := &traveller{world: newWorld(t, tableOf(features)), dir: dir, seed: seed, rng: r}
	if seed%3 > 0 {
		c.live()
		c.world = c.crash(seed)
	}
	for name := range c.disks {
		c.save(name)
	}
	if seed%3 > 0 {
		c.debian("a")
	}
	return c
}

// live does random things with udm.
func (c *traveller) live() {
	sim, r := env.NewStepped(), c.rng
	c.must(c.start(sim))
	for v := range 10 + r.Uint64N(60) {
		b := r.Uint64N(originBlocks) * bs
		switch r.IntN(9) {
		case 0, 1, 2:
			c.write(b, bs, v+1, 0)
		case 3, 4:
			c.write(b+r.Uint64N(bs-8), 8, v+1, blk.FUA*blk.Flags(r.IntN(2)))
		case 5:
			for range 60 {
				c.must(c.read(b, 8, false))
			}
		case 6:
			sleep(sim, time.Duration(r.IntN(70))*time.Second)
		case 7:
			c.must(c.load(c.table))
		default:
			c.flush()
		}
	}
	// The power is cut: the control is closed only for its goroutines, on disks of no more
	// interest.
	after := c.crash(c.seed)
	c.close()
	c.disks, c.model = after.disks, after.model
}

func (c *traveller) path(name string) string { return filepath.Join(c.dir, fmt.Sprint(name, c.seed)) }

func (c *traveller) save(name string) {
	d := c.disks[name]
	p := make([]byte, d.Limits().Size*blk.SectorSize)
	c.must(blk.ReadSectors(env.Real(), d, p, 0))
	c.must(os.WriteFile(c.path(name), p, 0o600))
}

func (c *traveller) fetch(name, file string) {
	p, err := os.ReadFile(c.path(file))
	c.must(err)
	d := memdev.New(uint64(len(p))/blk.SectorSize, memdev.Volatile)
	c.must(blk.WriteSectors(env.Real(), d, p, 0, 0))
	c.must(blk.FlushDevice(env.Real(), d))
	c.disks[name] = d
}

// debian has Debian's program look at a file of metadata.
func (c *traveller) debian(file string) {
	c.Helper()
	if out, err := exec.Command("cache_check", c.path(file)).CombinedOutput(); err != nil {
		c.Errorf("seed %d: cache_check %s: %v\n%s", c.seed, file, err, out)
	}
}

// script is what the kernel does with the cache.
func (c *traveller) script(b *strings.Builder) {
	sh := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	for _, name := range []string{"a", "b", "c"} {
		sh("%s=$(losetup -f --show $OUT/%s%d)", name, name, c.seed)
	}
	sh("dmsetup create x --table \"%s\"", strings.NewReplacer(" a ", " $a ", " b ", " $b ", " c ", " $c ").Replace(strings.Replace(c.table, "cache a b c", "cache $a $b $c", 1)))
	sh("dd if=/dev/mapper/x of=$OUT/read%d bs=64k iflag=direct status=none", c.seed)
	for i := range 4 + c.rng.IntN(6) {
		p := put{c.rng.Uint64N(originBlocks) * bs, bs, 1000 + uint64(i)}
		if i%3 == 2 {
			p.sector, p.sectors = p.sector+c.rng.Uint64N(7)*8, 8
		}
		c.puts = append(c.puts, p)
		file := fmt.Sprintf("put%d", i)
		c.must(os.WriteFile(c.path(file+"-"), blktest.Pattern(p.sector, p.sectors, p.seed), 0o600))
		sh("dd if=$OUT/%s-%d of=/dev/mapper/x bs=%d seek=%d oflag=direct,seek_bytes conv=fsync,notrunc status=none", file, c.seed, p.sectors*blk.SectorSize, p.sector*blk.SectorSize)
	}
	if c.seed%2 == 0 {
		sh("dmsetup remove x")
	}
	sh("blockdev --flushbufs $a; blockdev --flushbufs $b; blockdev --flushbufs $c")
	for _, name := range []string{"a", "b", "c"} {
		sh("cp $OUT/%s%d $OUT/cut%s%d", name, c.seed, name, c.seed)
	}
	if c.seed%2 != 0 {
		sh("dmsetup remove x")
	}
	sh("losetup -d $a; losetup -d $b; losetup -d $c")
}

// comeHome checks what the kernel has read, and that udm finds what it has written.
func (c *traveller) comeHome() {
	p, err := os.ReadFile(c.path("read"))
	c.must(err)
	if err := c.model.Check(p, 0); err != nil || len(p) != originSize*blk.SectorSize {
		c.Fatalf("seed %d, %s: the kernel has read %d bytes: %v", c.seed, c.table, len(p), err)
	}
	for _, p := range c.puts {
		c.model.Write(p.sector, p.sectors, p.seed, true)
	}
	c.debian("cuta")
	for _, name := range []string{"a", "b", "c"} {
		c.fetch(name, "cut"+name)
	}
	c.whole()
	c.save("a")
	c.debian("a")
	if c.Failed() {
		c.Fatalf("seed %d, %s, %v", c.seed, c.table, c.puts)
	}
}
