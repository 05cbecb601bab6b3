//go:build unix

package luks

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/crypt"
	"udm/test/kernel"
	"udm/test/need"
)

// TestKernel: random disks of both versions, made here and by cryptsetup in a real kernel, are
// read and written by the other.
func TestKernel(t *testing.T) {
	modules := append(slices.Clone(kernel.DefaultModules), "algif_skcipher")
	var all []choice
	for seed := range uint64(*disks) {
		c := choosePlain(seed)
		t.Logf("%d: %s", seed, c.options())
		all = append(all, c)
	}
	exchange(t, modules, len(all), exchanged{
		create: func(i int, path string) {
			create(t, device(t, path), all[i].format(), "pass")
			withPlain(t, path, writeFive(t))
		},
		options: func(i int) string { return all[i].options() },
		with:    func(path string, f func(blk.Device)) { withPlain(t, path, f) },
	})
}

// choosePlain is what a disk is like whose cipher the kernel has.
func choosePlain(seed uint64) choice {
	rng := rand.New(rand.NewPCG(seed, 3))
	c := choose(rng)
	c.version = 1 + int(seed%2)
	if c.version == 1 {
		c.sectorSize, c.label = 512, ""
	}
	if other := rng.IntN(8); other == 0 {
		c.cipher, c.bits = "twofish-xts-plain64", 512
	} else if other == 1 && c.version == 2 {
		c.cipher, c.bits = "xchacha12,aes-adiantum-plain64", 256
	}
	return c
}

func (c *choice) format() Format {
	f := small(c.version)
	f.Encryption, f.KeySize, f.Hash, f.SectorSize, f.Label, f.Offset = c.cipher, c.bits/8, c.hash, c.sectorSize, c.label, 4<<20
	return f
}

// options are those of cryptsetup.
func (c *choice) options() string {
	o := fmt.Sprintf("--type luks%d --cipher %s --key-size %d --hash %s", c.version, c.cipher, c.bits, c.hash)
	if c.version == 2 {
		o += fmt.Sprintf(" --luks2-metadata-size 16k --luks2-keyslots-size 2M --sector-size %d --label '%s'", c.sectorSize, c.label)
	}
	return o
}

// exchanged are disks of a kind. Of each create makes one here and writes pattern 5 to its
// start; options are those with which cryptsetup makes it; with opens it while f runs.
type exchanged struct {
	create  func(i int, path string)
	options func(i int) string
	with    func(path string, f func(blk.Device))
}

func writeFive(t *testing.T) func(blk.Device) {
	return func(d blk.Device) { must(t, blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 64, 5), 0, 0)) }
}

// exchange has n disks made here and by cryptsetup in a real kernel, and read and written by the
// other.
func exchange(t *testing.T, modules []string, n int, x exchanged) {
	kernel.Need(t)
	need.Tools(t, "cryptsetup")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "pass"), []byte("pass"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "five"), blktest.Pattern(0, 64, 5), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "seven"), blktest.Pattern(64, 64, 7), 0o600))
	var first, second strings.Builder
	open := "l=$(losetup -f --show $OUT/%s); cryptsetup open --disable-keyring --key-file $OUT/pass $l x\n"
	shut := "cryptsetup close x; losetup -d $l\n"
	for i := range n {
		ours, theirs := fmt.Sprint("ours", i), fmt.Sprint("theirs", i)
		emptyFile(t, filepath.Join(dir, ours))
		x.create(i, filepath.Join(dir, ours))
		emptyFile(t, filepath.Join(dir, theirs))
		fmt.Fprintf(&first, open+"dd if=/dev/mapper/x of=$OUT/read%d bs=4k count=8 iflag=direct status=none\n", ours, i)
		fmt.Fprint(&first, "dd if=$OUT/seven of=/dev/mapper/x bs=4k seek=8 count=8 oflag=direct status=none\n"+shut)
		fmt.Fprintf(&first, "cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file $OUT/pass %s $OUT/%s 2>/dev/null\n", x.options(i), theirs)
		fmt.Fprintf(&first, open+"dd if=$OUT/five of=/dev/mapper/x bs=4k count=8 oflag=direct status=none\n"+shut, theirs)
		fmt.Fprintf(&second, open+"dd if=/dev/mapper/x of=$OUT/again%d bs=4k skip=8 count=8 iflag=direct status=none\n"+shut, theirs, i)
	}
	kernel.Boot(t, kernel.Options{Dir: dir, Modules: modules, Script: first.String()})
	same := func(name string, want []byte) {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the kernel has read something else, %v", name, err)
		}
	}
	read := func(name string, sector, seed uint64) {
		x.with(filepath.Join(dir, name), func(d blk.Device) {
			p := make([]byte, 64*blk.SectorSize)
			if err := blk.ReadSectors(env.Real(), d, p, sector); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if err := blktest.Check(p, sector, seed); err != nil {
				t.Errorf("%s: written by the kernel: %v", name, err)
			}
			must(t, blk.WriteSectors(env.Real(), d, blktest.Pattern(64, 64, 7), 64, 0))
		})
	}
	for i := range n {
		same(fmt.Sprint("read", i), blktest.Pattern(0, 64, 5))
		read(fmt.Sprint("ours", i), 64, 7)
		read(fmt.Sprint("theirs", i), 0, 5)
	}
	kernel.Boot(t, kernel.Options{Dir: dir, Modules: modules, Script: second.String()})
	for i := range n {
		same(fmt.Sprint("again", i), blktest.Pattern(64, 64, 7))
	}
}

// emptyFile makes an empty disk.
func emptyFile(t *testing.T, path string) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 8<<20))
}

// withPlain opens a disk as the target crypt decrypts it.
func withPlain(t *testing.T, path string, f func(blk.Device)) {
	t.Helper()
	c := openFile(t, path)
	k := unlock(t, c, "pass")
	defer k.Close()
	line, size, err := c.Line(k, path, c.store.dev.Limits().Size)
	must(t, err)
	control := dm.NewControl(env.Real(), leaf.New(env.Real()), crypt.Type(nil))
	d, err := control.Create("x", "", -1)
	must(t, err)
	must(t, d.Load([]dm.Spec{dm.NewSpec(0, size, line)}, dm.Mode{Write: true}))
	must(t, d.Resume(context.Background(), false))
	f(d)
	must(t, blk.FlushDevice(env.Real(), d))
	must(t, control.Close())
}
