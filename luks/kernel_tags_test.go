//go:build unix

package luks

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/crypt"
	"udm/targets/integrity"
	"udm/test/kernel"
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
	return fmt.Sprintf("--type luks2 --luks2-metadata-size 16k --luks2-keyslots-size 512k --integrity %s --cipher %s --key-size %d --sector-size %d --integrity-no-wipe", c.theirs, c.cipher, c.bits, c.sector)
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
	f := create(t, device(t, path), c.format(), "pass")
	line, err := f.FormatIntegrity(env.Real(), f.store.dev, path)
	must(t, err)
	control := dm.NewControl(env.Real(), leaf.New(env.Real()), integrity.Type())
	d, err := control.Create("x", "", -1)
	must(t, err)
	must(t, d.Load([]dm.Spec{dm.NewSpec(0, 8, line)}, dm.Mode{Write: true}))
	must(t, control.Close())
	withTags(t, path, writeFive(t))
}

// TestKernelTags: authenticated disks made here and by cryptsetup are read and written by the
// other.
func TestKernelTags(t *testing.T) {
	modules := append(slices.Clone(kernel.DefaultModules), "algif_aead", "algif_skcipher")
	rng := rand.New(rand.NewPCG(4, 4))
	var all []tagChoice
	for i := range *tagDisks {
		c := chooseTags(i, rng)
		t.Logf("%d: %+v", i, c)
		all = append(all, c)
	}
	exchange(t, modules, len(all), exchanged{
		create:  func(i int, path string) { createTags(t, path, &all[i]) },
		options: func(i int) string { return all[i].options() },
		with:    func(path string, f func(blk.Device)) { withTags(t, path, f) },
	})
}
