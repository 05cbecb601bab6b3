//go:build unix

package luks

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/crypt"
	"udm/targets/integrity"
	logwrites "udm/targets/log-writes"
	"udm/test/kernel"
	"udm/test/need"
)

var (
	cutDisks = flag.Int("cutdisks", 2, "how many authenticated disks lose power here, and as many in the kernel")
	cutEvery = flag.Int("cutevery", 9, "the kernel opens one of so many states that a power cut here may leave")
)

const (
	cutSectors = 4 << 20 / blk.SectorSize // of a disk
	cutRange   = 128                      // sectors that are written, in blocks of 8
	cutWrites  = 24                       // to a disk
)

// powered is a disk in memory, whose power can be cut.
type powered struct {
	*memdev.Device
	after func() // called after each write and flush; nil: not
}

func (p *powered) Submit(b *blk.Bio) {
	writes := b.Op.IsWrite()
	p.Device.Submit(b)
	if writes && p.after != nil {
		p.after()
	}
}

func (p *powered) Open(string, bool) (blk.Device, dm.Number, error) {
	return kept{p}, dm.Number{Major: 7}, nil
}

type kept struct{ blk.Device }

func (kept) Close() error { return nil }

// opened is an authenticated disk that is in use.
type opened struct {
	*dm.Device
	sim     *env.Sim
	control *dm.Control
}

// openTags opens the disk, with a new superblock of integrity if it is fresh.
func openTags(t *testing.T, disk *powered, fresh bool) *opened {
	t.Helper()
	c := open(t, disk)
	k := unlock(t, c, "pass")
	defer k.Close()
	x := &opened{sim: env.NewStepped()}
	x.control = dm.NewControl(x.sim, disk, crypt.Type(nil), integrity.Type())
	make := func(name string, size uint64, line dm.Line) *dm.Device {
		d, err := x.control.Create(name, "", -1)
		must(t, err)
		must(t, d.Load([]dm.Spec{dm.NewSpec(0, size, line)}, dm.Mode{Write: true}))
		must(t, d.Resume(context.Background(), false))
		return d
	}
	if fresh {
		line, err := c.FormatIntegrity(x.sim, disk, "disk")
		must(t, err)
		_, err = make("new", 8, line).Remove(false)
		must(t, err)
	}
	below, size, err := c.IntegrityLine(x.sim, disk, "disk")
	must(t, err)
	line, _, err := c.Line(k, "/dev/mapper/tags", size)
	must(t, err)
	make("tags", size, below)
	x.Device = make("x", size, line)
	return x
}

func (x *opened) close(t *testing.T) {
	t.Helper()
	must(t, x.control.Close())
	x.sim.Close()
}

// newTags makes an authenticated disk of zeroes.
func newTags(t *testing.T, c *tagChoice) *powered {
	t.Helper()
	disk := &powered{Device: memdev.New(cutSectors, memdev.Volatile)}
	create(t, disk, c.format(), "pass")
	x := openTags(t, disk, true)
	must(t, blk.WriteSectors(x.sim, x, make([]byte, cutRange*blk.SectorSize), 0, blk.FUA))
	x.close(t)
	return disk
}

// store writes a disk to a file with holes.
func (p *powered) store(t *testing.T, path string) {
	t.Helper()
	all := make([]byte, cutSectors*blk.SectorSize)
	must(t, blk.ReadSectors(env.Real(), p, all, 0))
	storeHoles(t, all, path)
}

// checkCut reads the range of a disk that has lost its power.
func checkCut(t *testing.T, disk *powered, model *blktest.Model) error {
	t.Helper()
	x := openTags(t, disk, false)
	defer x.close(t)
	p := make([]byte, cutRange*blk.SectorSize)
	if err := blk.ReadSectors(x.sim, x, p, 0); err != nil {
		return err
	}
	return afterCut(model).Check(p, 0)
}

func afterCut(m *blktest.Model) *blktest.Model {
	m = m.Clone()
	m.Crash()
	return m
}

const openCut = "l=$(losetup -f --show $OUT/%s)\ncryptsetup open --disable-keyring --key-file $OUT/pass $l x\n"

// TestKernelOpensTagsAfterPowerCuts has the kernel open authenticated disks that have lost
// their power here after a write.
func TestKernelOpensTagsAfterPowerCuts(t *testing.T) {
	kernel.Need(t)
	need.Tools(t, "cryptsetup")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "pass"), []byte("pass"), 0o600))
	rng := rand.New(rand.NewPCG(5, 5))
	var models []*blktest.Model
	var script strings.Builder
	states := 0
	for i := range *cutDisks {
		c := chooseTags(i, rng)
		disk := newTags(t, &c)
		x := openTags(t, disk, false)
		model := blktest.NewModel(cutRange)
		disk.after = func() {
			if states++; states%*cutEvery > 0 {
				return
			}
			n := len(models)
			models = append(models, afterCut(model))
			(&powered{Device: disk.CrashClone(uint64(n))}).store(t, filepath.Join(dir, fmt.Sprint("cut", n)))
			fmt.Fprintf(&script, openCut, fmt.Sprint("cut", n))
			fmt.Fprintf(&script, "dd if=/dev/mapper/x of=$OUT/read%d bs=4k count=%d iflag=direct status=none\ncryptsetup close x; losetup -d $l\n", n, cutRange/8)
		}
		for v := range uint64(cutWrites) {
			write(t, x, model, rng, v+1)
		}
		disk.after = nil
		x.close(t)
	}
	t.Logf("%d states, of which the kernel opens %d", states, len(models))
	kernel.Boot(t, kernel.Options{Dir: dir, Modules: cutModules(), Script: script.String()})
	for n, m := range models {
		p, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("read", n)))
		must(t, err)
		if err := m.Check(p, 0); err != nil {
			t.Errorf("state %d: the kernel has read %v", n, err)
		}
	}
}

func cutModules() []string {
	return append(slices.Clone(kernel.DefaultModules), "algif_aead", "algif_skcipher", "dm-log-writes")
}

// write writes some blocks, and flushes now and then.
func write(t *testing.T, x *opened, m *blktest.Model, rng *rand.Rand, seed uint64) {
	t.Helper()
	sector := 8 * rng.Uint64N(cutRange/8)
	sectors := min(cutRange-sector, 8*(1+rng.Uint64N(4)))
	flags := blk.Flags(0)
	if rng.IntN(3) == 0 {
		flags = blk.FUA
	}
	op := m.Begin(sector, sectors, seed)
	must(t, blk.WriteSectors(x.sim, x, blktest.Pattern(sector, sectors, seed), sector, flags))
	m.End(op, blk.OK, flags == blk.FUA)
	if rng.IntN(4) == 0 {
		token := m.FlushBegin()
		must(t, blk.FlushDevice(x.sim, x))
		m.FlushEnd(token)
	}
}

// TestKernelCutsTags opens authenticated disks that lose their power after each write of the
// kernel, as the target log-writes there tells.
func TestKernelCutsTags(t *testing.T) {
	kernel.Need(t)
	need.Tools(t, "cryptsetup")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "pass"), []byte("pass"), 0o600))
	rng := rand.New(rand.NewPCG(6, 6))
	var disks []*powered
	var script strings.Builder
	var data []byte
	place := func(v uint64) uint64 { return v * 5 % (cutRange / 8) } // of write v, in blocks
	for v := range uint64(cutWrites) {
		data = append(data, blktest.Pattern(8*place(v), 8, v+1)...)
	}
	must(t, os.WriteFile(filepath.Join(dir, "data"), data, 0o600))
	for i := range *cutDisks {
		c := chooseTags(i, rng)
		disk := newTags(t, &c)
		disks = append(disks, disk)
		disk.store(t, filepath.Join(dir, fmt.Sprint("disk", i)))
		log := filepath.Join(dir, fmt.Sprint("log", i))
		must(t, os.WriteFile(log, nil, 0o600))
		must(t, os.Truncate(log, 64<<20))
		fmt.Fprintf(&script, "l=$(losetup -f --show $OUT/disk%d); g=$(losetup -f --show $OUT/log%d)\n", i, i)
		fmt.Fprintf(&script, "dmsetup create lw --table \"0 %d log-writes $l $g\"\n", cutSectors)
		fmt.Fprint(&script, "cryptsetup open --disable-keyring --key-file $OUT/pass /dev/mapper/lw x\n")
		for v := range uint64(cutWrites) {
			fmt.Fprintf(&script, "dd if=$OUT/data of=/dev/mapper/x bs=4k count=1 skip=%d seek=%d oflag=direct conv=fsync,notrunc status=none; dmsetup message lw 0 mark %d\n", v, place(v), v)
		}
		fmt.Fprint(&script, "cryptsetup close x; dmsetup remove lw; losetup -d $l; losetup -d $g\n")
	}
	kernel.Boot(t, kernel.Options{Dir: dir, Modules: cutModules(), Script: script.String()})
	for i, disk := range disks {
		model := blktest.NewModel(cutRange)
		begin := func(v uint64) blktest.Op { return model.Begin(8*place(v), 8, v+1) }
		op := begin(0)
		states := replayEach(t, filepath.Join(dir, fmt.Sprint("log", i)), disk, func(e *logwrites.Entry) {
			if e.Mark {
				if v, err := strconv.ParseUint(e.Text, 10, 64); err == nil { // else the kernel's own, at the end
					model.End(op, blk.OK, true)
					op = begin(v + 1)
				}
				return
			}
			if err := checkCut(t, &powered{Device: disk.CrashCloneAll()}, model); err != nil {
				t.Fatalf("disk %d after %v of the kernel: %v", i, e, err)
			}
		})
		t.Logf("disk %d: %d states", i, states)
	}
}

// TestKernelCutsHeaders opens disks that lose their power after each write with which cryptsetup
// changes their headers in the kernel.
func TestKernelCutsHeaders(t *testing.T) {
	kernel.Need(t)
	need.Tools(t, "cryptsetup")
	dir := t.TempDir()
	for _, pass := range []string{"old", "new", "newer"} {
		must(t, os.WriteFile(filepath.Join(dir, pass), []byte(pass), 0o600))
	}
	const kdf = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file $OUT/"
	options := []string{"--type luks1", "--type luks2 --luks2-metadata-size 16k --luks2-keyslots-size 2M"}
	var script strings.Builder
	for i, o := range options {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("disk", i)), nil, 0o600))
		must(t, os.Truncate(filepath.Join(dir, fmt.Sprint("disk", i)), cutSectors*blk.SectorSize))
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("log", i)), nil, 0o600))
		must(t, os.Truncate(filepath.Join(dir, fmt.Sprint("log", i)), 64<<20))
		fmt.Fprintf(&script, "l=$(losetup -f --show $OUT/disk%d); g=$(losetup -f --show $OUT/log%d)\n", i, i)
		fmt.Fprintf(&script, "dmsetup create lw --table \"0 %d log-writes $l $g\"\n", cutSectors)
		for _, step := range []string{"luksFormat -q " + o + " " + kdf + "old /dev/mapper/lw", "luksAddKey " + kdf + "old /dev/mapper/lw $OUT/new",
			"luksChangeKey " + kdf + "old /dev/mapper/lw $OUT/newer", "luksRemoveKey --key-file $OUT/newer /dev/mapper/lw"} {
			fmt.Fprintf(&script, "cryptsetup %s 2>/dev/null; dmsetup message lw 0 mark %s\n", step, strings.Fields(step)[0])
		}
		fmt.Fprint(&script, "dmsetup remove lw; losetup -d $l; losetup -d $g\n")
	}
	kernel.Boot(t, kernel.Options{Dir: dir, Modules: append(cutModules(), "algif_skcipher"), Script: script.String()})
	// Of each list of passphrases one must open the disk, after the step.
	sure := map[string][][]string{"luksFormat": {{"old"}}, "luksAddKey": {{"new"}, {"old", "newer"}}, "luksChangeKey": {{"new"}}, "luksRemoveKey": {{"new"}}}
	for i := range options {
		disk := &powered{Device: memdev.New(cutSectors, memdev.Volatile)}
		var want []byte // the key
		step := ""
		states := replayEach(t, filepath.Join(dir, fmt.Sprint("log", i)), disk, func(e *logwrites.Entry) {
			if e.Mark && sure[e.Text] != nil {
				step = e.Text
			}
			for _, passes := range sure[step] {
				got := keyBy(t, disk, passes)
				if want == nil {
					want = got
				}
				if got == nil || !bytes.Equal(got, want) {
					t.Errorf("disk %d, %v after %s: none of %v opens it to its key", i, e, step, passes)
				}
			}
		})
		if step != "luksRemoveKey" {
			t.Errorf("disk %d: %q is the last step", i, step)
		}
		shut(t, open(t, disk), "newer")
		t.Logf("disk %d: %d states", i, states)
	}
}

// keyBy is the key of a disk that one of the passphrases opens, or nil.
func keyBy(t *testing.T, disk blk.Device, passes []string) []byte {
	t.Helper()
	c := open(t, disk)
	for _, pass := range passes {
		if k, err := c.Unlock([]byte(pass), AnySlot); err == nil {
			defer k.Close()
			return bytes.Clone(k.secret.Bytes())
		}
	}
	return nil
}

// replayEach writes what a log has to a disk, and calls f after each entry. It returns the
// number of those that are no marks.
func replayEach(t *testing.T, log string, disk *powered, f func(*logwrites.Entry)) (n int) {
	t.Helper()
	file, err := os.Open(log)
	must(t, err)
	defer file.Close()
	l, err := logwrites.OpenLog(file)
	must(t, err)
	for {
		e, err := l.Next()
		if err == io.EOF {
			return n
		}
		must(t, err)
		must(t, e.Replay(env.Real(), disk))
		if f(e); !e.Mark {
			n++
		}
	}
}
