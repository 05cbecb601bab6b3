//go:build unix

package writecache_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
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
// the kernel's are closed in order.
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
	options := []string{"0", "2 autocommit_time 3600000", "4 start_sector 4 autocommit_blocks 3", "6 high_watermark 30 low_watermark 20 pause_writeback 0", "1 cleaner"}[r.IntN(5)]
	c := &traveller{world: newWorld(t, tableOf(options)), dir: dir, seed: seed, rng: r}
	if seed%3 > 0 {
		c.live()
	}
	for name := range c.disks {
		c.save(name)
	}
	return c
}

// live does random things with udm, until the power is cut.
func (c *traveller) live() {
	sim, r := env.NewStepped(), c.rng
	c.must(c.start(sim))
	for v := range 5 + r.Uint64N(60) {
		n := bs * (1 + r.Uint64N(5))
		at := r.Uint64N((originSize-n)/bs) * bs
		switch r.IntN(9) {
		case 0, 1, 2, 3:
			c.write(at, n, v+1, blk.FUA*blk.Flags(r.IntN(5)/4))
		case 4:
			c.must(c.read(at, n, false))
		case 5:
			sleep(sim, time.Duration(r.IntN(2000))*time.Millisecond)
		case 6:
			if r.IntN(3) == 0 {
				c.must(c.message("flush"))
			}
		case 7:
			if r.IntN(3) == 0 {
				c.must(c.load(c.table))
			}
		default:
			c.flush()
		}
	}
	after := c.crash(c.seed)
	c.close() // only to end its goroutines; its disks are not used any more
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
	c.must(blk.WriteSectors(env.Real(), d, p, 0, blk.FUA))
	c.disks[name] = d
}

// script is what the kernel does with the cache. What it writes is flushed each time.
func (c *traveller) script(b *strings.Builder) {
	sh := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	for _, name := range []string{"a", "b"} {
		sh("%s=$(losetup -f --show $OUT/%s%d)", name, name, c.seed)
	}
	sh("dmsetup create x --table \"%s\"", strings.Replace(c.table, " a b ", " $a $b ", 1))
	sh("dd if=/dev/mapper/x of=$OUT/read%d bs=%d count=1 iflag=direct status=none", c.seed, originSize*blk.SectorSize)
	for i := range 4 + c.rng.IntN(6) {
		n := bs * (1 + c.rng.Uint64N(6))
		p := put{c.rng.Uint64N((originSize-n)/bs) * bs, n, 1000 + uint64(i)}
		c.puts = append(c.puts, p)
		file := fmt.Sprintf("put%d", i)
		c.must(os.WriteFile(c.path(file+"-"), blktest.Pattern(p.sector, p.sectors, p.seed), 0o600))
		sh("dd if=$OUT/%s-%d of=/dev/mapper/x bs=%d seek=%d oflag=direct,seek_bytes conv=fsync,notrunc status=none", file, c.seed, p.sectors*blk.SectorSize, p.sector*blk.SectorSize)
		if i == 3 && c.seed%4 == 1 {
			sh("dmsetup message x 0 flush")
		}
	}
	if c.seed%2 == 0 {
		sh("dmsetup remove x")
	}
	sh("blockdev --flushbufs $a; blockdev --flushbufs $b")
	for _, name := range []string{"b", "a"} { // what leaves the cache meanwhile is on the origin
		sh("cp $OUT/%s%d $OUT/cut%s%d", name, c.seed, name, c.seed)
	}
	if c.seed%2 != 0 {
		sh("dmsetup remove x")
	}
	sh("losetup -d $a; losetup -d $b")
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
	c.fetch("a", "cuta")
	c.fetch("b", "cutb")
	c.whole()
	if c.Failed() {
		c.Fatalf("seed %d, %s, %v", c.seed, c.table, c.puts)
	}
}
