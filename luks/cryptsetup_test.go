//go:build unix

package luks

import (
	"bytes"
	"flag"
	"fmt"
	"hash/maphash"
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
	"udm/env"
	"udm/test/need"
)

var disks = flag.Int("disks", 4, "how many random disks to make with cryptsetup, and as many here")

// cryptsetup runs the real one.
func cryptsetup(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "cryptsetup", append([]string{"-q"}, args...)...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("cryptsetup %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// image makes an empty file of so many MiB and opens it.
func image(t *testing.T, mib int64) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk.img")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, mib<<20))
	return path
}

func openFile(t *testing.T, path string) *Container {
	t.Helper()
	return open(t, device(t, path))
}

// plain is a file without the lock of filedev, since cryptsetup has a look at it
// meanwhile, and would wait for the lock.
type plain struct{ *os.File }

func (p plain) Limits() blk.Limits {
	info, err := p.Stat()
	if err != nil {
		return blk.Limits{}
	}
	return blk.DefaultLimits(uint64(info.Size()) / blk.SectorSize)
}

func (p plain) String() string { return p.Name() }

func (p plain) Submit(b *blk.Bio) {
	var err error
	off := int64(b.Sector * blk.SectorSize)
	for s := range b.Segments() {
		if b.Op == blk.Read {
			_, err = p.ReadAt(s, off)
		} else {
			_, err = p.WriteAt(s, off)
		}
		off += int64(len(s))
	}
	b.Complete(blk.StatusOf(err))
}

func device(t *testing.T, path string) blk.Device {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return plain{f}
}

func pick[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// choice is what a random disk is like.
type choice struct {
	version    int
	cipher     string
	bits       int
	hash       string
	sectorSize int
	pbkdf      string
	label      string
	offset     uint64 // sectors; 0: the default
	detached   bool
	pass, more string
}

func choose(rng *rand.Rand) choice {
	c := choice{version: 1 + rng.IntN(2), hash: pick(rng, "sha1", "sha256", "sha512", "ripemd160"), sectorSize: 512, pbkdf: "pbkdf2"}
	c.cipher = pick(rng, "aes-xts-plain64", "aes-xts-plain64", "aes-xts-plain", "aes-cbc-essiv:sha256", "aes-cbc-plain64")
	c.bits = pick(rng, 128, 256)
	if strings.Contains(c.cipher, "xts") {
		c.bits *= 2
	}
	if c.version == 2 {
		c.sectorSize = pick(rng, 512, 512, 1024, 4096)
		c.pbkdf = pick(rng, "argon2i", "argon2id", "pbkdf2")
		c.label = pick(rng, "", "my disk", "a")
	}
	if c.detached = rng.IntN(5) == 0; !c.detached && rng.IntN(3) == 0 {
		c.offset = 32768 + 2048*rng.Uint64N(4)
	}
	c.pass = pick(rng, "simple", "with spaces and ümläuts", strings.Repeat("long", 100), "new\nline")
	c.more = "another " + c.pass
	return c
}

func (c *choice) kdf() []string {
	if c.pbkdf == "pbkdf2" {
		return []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	}
	return []string{"--pbkdf", c.pbkdf, "--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "2"}
}

// TestDisksOfCryptsetup opens disks that cryptsetup has made, with both of their
// passphrases, and finds the volume key that cryptsetup finds, and its data in the
// same place.
func TestDisksOfCryptsetup(t *testing.T) {
	need.Tools(t, "cryptsetup")
	for seed := range uint64(*disks) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			c := choose(rng)
			t.Logf("%+v", c)
			path := image(t, 34)
			args := append([]string{"luksFormat", path, "--key-file", "-", "--type", fmt.Sprintf("luks%d", c.version), "--cipher", c.cipher,
				"--key-size", fmt.Sprint(c.bits), "--hash", c.hash, "--use-urandom"}, c.kdf()...)
			if c.version == 2 {
				args = append(args, "--sector-size", fmt.Sprint(c.sectorSize), "--label", c.label)
			}
			if c.offset > 0 {
				args = append(args, "--offset", fmt.Sprint(c.offset))
			}
			header := path
			if c.detached {
				header = filepath.Join(t.TempDir(), "header.img")
				args = append(args, "--header", header)
			}
			cryptsetup(t, c.pass, args...)
			more := filepath.Join(t.TempDir(), "more")
			must(t, os.WriteFile(more, []byte(c.more), 0o600))
			cryptsetup(t, c.pass, append([]string{"luksAddKey", header, more, "--key-file", "-"}, c.kdf()...)...)
			keyFile := filepath.Join(t.TempDir(), "key")
			cryptsetup(t, c.pass, "luksDump", header, "--dump-volume-key", "--volume-key-file", keyFile, "--key-file", "-")
			want, err := os.ReadFile(keyFile)
			must(t, err)

			l := openFile(t, header)
			for slot, pass := range []string{c.pass, c.more} {
				if k := unlock(t, l, pass); !bytes.Equal(k.secret.Bytes(), want) || k.Slot != slot {
					t.Errorf("slot %d opens %v in slot %d, another key", slot, k, k.Slot)
				}
			}
			shut(t, l, "wrong")
			if s := l.Header.Segment; s.Encryption != c.cipher || s.SectorSize != c.sectorSize || s.KeySize != c.bits/8 || (c.offset > 0 || c.detached) && s.Offset != c.offset*512 {
				t.Errorf("segment %+v", s)
			}
			if l.Header.Label != c.label || l.Header.UUID != strings.TrimSpace(cryptsetup(t, "", "luksUUID", header)) {
				t.Errorf("label %q, UUID %q", l.Header.Label, l.Header.UUID)
			}
			// A backup is that of cryptsetup, as far as it goes.
			backup := filepath.Join(t.TempDir(), "backup")
			cryptsetup(t, "", "luksHeaderBackup", header, "--header-backup-file", backup)
			theirs, err := os.ReadFile(backup)
			must(t, err)
			var ours bytes.Buffer
			must(t, l.Backup(&ours))
			if n := min(len(theirs), ours.Len()); !bytes.Equal(theirs[:n], ours.Bytes()[:n]) || c.version == 2 && len(theirs) != ours.Len() {
				t.Errorf("a backup of %d bytes, that of cryptsetup has %d", ours.Len(), len(theirs))
			}
		})
	}
}

// TestCryptsetupTakesOurs has cryptsetup look at, open and change disks that were
// made and changed here.
func TestCryptsetupTakesOurs(t *testing.T) {
	need.Tools(t, "cryptsetup")
	for seed := range uint64(*disks) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			c := choose(rng)
			t.Logf("%+v", c)
			kdf := KDF{Type: c.pbkdf, Time: 4, Memory: 64, CPUs: 2}
			if c.pbkdf == "pbkdf2" {
				kdf = KDF{Type: c.pbkdf, Hash: c.hash, Iterations: 1000}
			}
			path := image(t, 34)
			f := Format{Version: c.version, Encryption: c.cipher, KeySize: c.bits / 8, Hash: c.hash, SectorSize: c.sectorSize, Label: c.label, Offset: c.offset * 512,
				Detached: c.detached, KDF: kdf, DigestIterations: 1000}
			d := device(t, path)
			l := create(t, d, f, c.pass)
			k := unlock(t, l, c.pass)
			_, err := l.AddKey(k, []byte(c.more), kdf)
			must(t, err)
			k = unlock(t, l, c.pass)
			slot, err := l.ChangeKey(k, []byte("changed"), kdf)
			must(t, err)

			cryptsetup(t, "", "isLuks", path)
			t.Log(cryptsetup(t, "", "luksDump", path))
			for _, pass := range []string{"changed", c.more} {
				cryptsetup(t, pass, "open", "--test-passphrase", path, "--key-file", "-")
			}
			keyFile := filepath.Join(t.TempDir(), "key")
			cryptsetup(t, c.more, "luksDump", path, "--dump-volume-key", "--volume-key-file", keyFile, "--key-file", "-")
			if got, err := os.ReadFile(keyFile); err != nil || !bytes.Equal(got, k.secret.Bytes()) {
				t.Errorf("cryptsetup finds another key: %v", err)
			}
			cryptsetup(t, "", "luksKillSlot", path, fmt.Sprint(slot))
			l = open(t, d)
			shut(t, l, "changed")
			unlock(t, l, c.more)
			cryptsetup(t, c.more, append([]string{"luksChangeKey", path, "--key-file", "-", writeFile(t, "theirs")}, c.kdf()...)...)
			unlock(t, open(t, d), "theirs")
		})
	}
}

// TestCryptsetupAfterPowerCuts: cryptsetup, too, opens what is left when the power is cut at an I/O
// of a change.
func TestCryptsetupAfterPowerCuts(t *testing.T) {
	need.Tools(t, "cryptsetup")
	seed, seen := maphash.MakeSeed(), make(map[uint64]bool)
	cutEach(t, func(s *scenario, t *testing.T, f *blktest.Failer, d *memdev.Device, k *Key) {
		c := open(t, d)
		front := c.Header.Segment.Offset // bytes in front of the data
		c.store.dev = f.Wrap(d)
		_ = s.change(c, k, c.Header.Version) // TestPowerCuts looks at the error
		for _, after := range []*memdev.Device{d.CrashCloneNone(), d.CrashClone(1), d.CrashClone(2), d.CrashCloneAll()} {
			p := make([]byte, front)
			must(t, blk.ReadSectors(env.Real(), after, p, 0))
			sum := maphash.Bytes(seed, p)
			if seen[sum] {
				continue
			}
			seen[sum] = true
			path := filepath.Join(t.TempDir(), "disk")
			storeHoles(t, p, path)
			must(t, os.Truncate(path, diskSectors*blk.SectorSize))
			if !slices.ContainsFunc(s.must, func(pass string) bool { return takes(t, path, pass) }) {
				t.Errorf("%v: none of %v opens the disk", f, s.must)
			}
		}
	})
	t.Logf("%d states", len(seen))
}

// storeHoles writes a disk to a file with holes.
func storeHoles(t *testing.T, p []byte, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(int64(len(p))))
	for at := 0; at < len(p); at += 4096 {
		if block := p[at : at+4096]; !bytes.Equal(block, make([]byte, 4096)) {
			_, err := f.WriteAt(block, int64(at))
			must(t, err)
		}
	}
	must(t, f.Close())
}

// takes reports whether cryptsetup opens a disk by a passphrase.
func takes(t *testing.T, path, pass string) bool {
	c := exec.CommandContext(t.Context(), "cryptsetup", "-q", "open", "--test-passphrase", path, "--key-file", "-")
	c.Stdin = strings.NewReader(pass)
	return c.Run() == nil
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// TestTokensOfCryptsetup: a token that cryptsetup has put there is found and kept.
func TestTokensOfCryptsetup(t *testing.T) {
	need.Tools(t, "cryptsetup")
	path := image(t, 34)
	d := device(t, path)
	create(t, d, small(2), "one")
	cryptsetup(t, `{"type":"test","keyslots":["0"],"word":"kept"}`, "token", "import", path, "--json-file", "-")
	l := open(t, d)
	_, err := l.ChangeKey(unlock(t, l, "one"), []byte("two"), cheap[2])
	must(t, err)
	if out := cryptsetup(t, "", "token", "export", path, "--token-id", "0"); !strings.Contains(out, `"word":"kept"`) || !strings.Contains(out, `"keyslots":["0"]`) {
		t.Error(out)
	}
}

// TestRepairsCryptsetup: cryptsetup goes on with what was repaired here.
func TestRepairsCryptsetup(t *testing.T) {
	need.Tools(t, "cryptsetup")
	path := image(t, 34)
	cryptsetup(t, "one", append([]string{"luksFormat", path, "--key-file", "-", "--type", "luks2"}, (&choice{pbkdf: "argon2id"}).kdf()...)...)
	d := device(t, path)
	must(t, blk.WriteSectors(env.Real(), d, make([]byte, 8192), 0, 0))
	l := open(t, d)
	if l.Header.Damaged == "" {
		t.Error("not damaged")
	}
	must(t, l.Repair())
	cryptsetup(t, "one", "open", "--test-passphrase", path, "--key-file", "-")
}
