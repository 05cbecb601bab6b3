//go:build unix

package luks

import (
	"bytes"
	"context"
	"flag"
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
	"udm/targets/integrity"
	"udm/test/kernel"
	"udm/test/need"
)

var tagDisks = flag.Int("tagdisks", 7, "how many random authenticated disks to make with cryptsetup, and as many here")

// tagChoice is what an authenticated disk is like.
type tagChoice struct {
	integrity, theirs, cipher string // theirs is cryptsetup's name of integrity
	bits, sector              int
}

func chooseTags(n int, rng *rand.Rand) tagChoice {
	c := []tagChoice{
		{"hmac(sha256)", "hmac-sha256", "aes-xts-plain64", 512, 512}, {"aead", "aead", "aes-gcm-random", 256, 512}, {"poly1305", "poly1305", "chacha20-random", 256, 512},
		{"hmac(sha1)", "hmac-sha1", "aes-cbc-plain64", 128, 512}, {"none", "none", "aes-xts-random", 256, 512}, {"hmac(sha512)", "hmac-sha512", "aes-xts-random", 256, 512},
		{"aead", "aead", "aes-gcm-plain64", 128, 512},
	}[n%7]
	c.sector = pick(rng, 512, 1024, 2048, 4096)
	return c
}

func (c *tagChoice) format() Format {
	f := small(2)
	f.Encryption, f.Integrity, f.KeySize, f.SectorSize, f.Offset = c.cipher, c.integrity, c.bits/8, c.sector, 1<<20
	return f
}

func (c *tagChoice) options() string {
	return fmt.Sprintf("--integrity %s --cipher %s --key-size %d --sector-size %d --integrity-no-wipe", c.theirs, c.cipher, c.bits, c.sector)
}

// tagFile makes an empty disk.
func tagFile(t *testing.T, path string) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 8<<20))
}

// withTags opens an authenticated disk while f runs.
func withTags(t *testing.T, path string, f func(blk.Device)) {
	t.Helper()
	c := openFile(t, path)
	k := unlock(t, c, "pass")
	defer k.Close()
	below, size, err := c.IntegrityLine(env.Real(), c.store.dev, path)
	must(t, err)
	line, _, err := c.Line(k, "/dev/mapper/tags", size)
	must(t, err)
	control := dm.NewControl(env.Real(), leaf.New(env.Real()), crypt.Type(nil), integrity.Type())
	make := func(name string, line dm.Line) *dm.Device {
		d, err := control.Create(name, "", -1)
		must(t, err)
		must(t, d.Load([]dm.Spec{dm.NewSpec(0, size, line)}, dm.Mode{Write: true}))
		must(t, d.Resume(context.Background(), false))
		return d
	}
	make("tags", below)
	d := make("x", line)
	f(d)
	must(t, blk.FlushDevice(env.Real(), d))
	must(t, d.Close())
	must(t, control.Close())
}

// createTags creates an authenticated disk and writes to it.
func createTags(t *testing.T, path string, c *tagChoice) {
	t.Helper()
	tagFile(t, path)
	f := create(t, device(t, path), c.format(), "pass")
	line, err := f.FormatIntegrity(env.Real(), f.store.dev, path)
	must(t, err)
	control := dm.NewControl(env.Real(), leaf.New(env.Real()), integrity.Type())
	d, err := control.Create("x", "", -1)
	must(t, err)
	must(t, d.Load([]dm.Spec{dm.NewSpec(0, 8, line)}, dm.Mode{Write: true}))
	must(t, control.Close())
	withTags(t, path, func(d blk.Device) { must(t, blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 64, 5), 0, 0)) })
}

// TestKernelTags: authenticated disks made here and by cryptsetup are read and written by the
// other.
func TestKernelTags(t *testing.T) {
	kernel.Need(t)
	need.Tools(t, "cryptsetup")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "pass"), []byte("pass"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "five"), blktest.Pattern(0, 64, 5), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "seven"), blktest.Pattern(64, 64, 7), 0o600))
	var first, second strings.Builder
	open := "l=$(losetup -f --show $OUT/%s); cryptsetup open --disable-keyring --key-file $OUT/pass $l x\n"
	shut := "cryptsetup close x; losetup -d $l\n"
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range *tagDisks {
		c := chooseTags(i, rng)
		t.Logf("%d: %+v", i, c)
		ours, theirs := fmt.Sprint("ours", i), fmt.Sprint("theirs", i)
		createTags(t, filepath.Join(dir, ours), &c)
		tagFile(t, filepath.Join(dir, theirs))
		fmt.Fprintf(&first, open+"dd if=/dev/mapper/x of=$OUT/read%d bs=4k count=8 iflag=direct status=none\n", ours, i)
		fmt.Fprint(&first, "dd if=$OUT/seven of=/dev/mapper/x bs=4k seek=8 count=8 oflag=direct status=none\n"+shut)
		fmt.Fprintf(&first, "cryptsetup luksFormat -q --type luks2 --luks2-metadata-size 16k --luks2-keyslots-size 512k --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file $OUT/pass %s $OUT/%s 2>/dev/null\n", c.options(), theirs)
		fmt.Fprintf(&first, open+"dd if=$OUT/five of=/dev/mapper/x bs=4k count=8 oflag=direct status=none\n"+shut, theirs)
		fmt.Fprintf(&second, open+"dd if=/dev/mapper/x of=$OUT/again%d bs=4k skip=8 count=8 iflag=direct status=none\n"+shut, theirs, i)
	}
	modules := append(slices.Clone(kernel.DefaultModules), "algif_aead", "algif_skcipher")
	kernel.Boot(t, kernel.Options{Dir: dir, Modules: modules, Script: first.String()})
	same := func(name string, want []byte) {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the kernel has read something else, %v", name, err)
		}
	}
	read := func(name string, sector, seed uint64) {
		withTags(t, filepath.Join(dir, name), func(d blk.Device) {
			p := make([]byte, 64*blk.SectorSize)
			if err := blk.ReadSectors(env.Real(), d, p, sector); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if err := blktest.Check(p, sector, seed); err != nil {
				t.Errorf("%s: written by the kernel: %v", name, err)
			}
			must(t, blk.WriteSectors(env.Real(), d, blktest.Pattern(64, 64, 7), 64, 0))
		})
	}
	for i := range *tagDisks {
		same(fmt.Sprint("read", i), blktest.Pattern(0, 64, 5))
		read(fmt.Sprint("ours", i), 64, 7)
		read(fmt.Sprint("theirs", i), 0, 5)
	}
	kernel.Boot(t, kernel.Options{Dir: dir, Modules: modules, Script: second.String()})
	for i := range *tagDisks {
		same(fmt.Sprint("again", i), blktest.Pattern(64, 64, 7))
	}
}
