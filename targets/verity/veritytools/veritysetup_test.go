//go:build unix

package veritytools_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/verity"
	"udm/targets/verity/veritytools"
	"udm/test/need"
)

var howMany = flag.Int("disks", 4, "number of random disks made by veritysetup, and of those made by udm")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// veritysetup runs cryptsetup's program.
func veritysetup(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "veritysetup", args...).CombinedOutput()
	return string(out), err
}

func pick[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// choice holds the parameters of a random disk and its directory.
type choice struct {
	header            veritytools.Header
	offset, fecOffset uint64 // bytes
	superblock        bool
	attached          bool // the tree follows the data in the same file
	roots             int  // 0 without parity
	fecAttached       bool // the parity follows the tree in the same file
	dir               string
}

// choose draws the parameters of a disk and writes random data. The files for the tree
// and the parity stay empty.
func choose(t *testing.T, seed, stream uint64) *choice {
	rng := rand.New(rand.NewPCG(seed, stream))
	c := &choice{superblock: rng.IntN(4) > 0, attached: rng.IntN(3) == 0, dir: t.TempDir()}
	s := &c.header.Shape
	s.Version, s.Algorithm = pick(rng, 1, 1, 0), pick(rng, "sha256", "sha256", "sha1", "sha512", "sha224", "sha384")
	s.DataBlock, s.HashBlock = 512<<rng.IntN(4), 512<<rng.IntN(4)
	if rng.IntN(2) == 0 {
		s.HashBlock = s.DataBlock
		c.roots = pick(rng, 0, 2, 2, 3, 7, 8, 24)
	}
	s.DataBlocks = 1 + rng.Uint64N(uint64(600<<10/s.DataBlock))
	s.Salt = make([]byte, pick(rng, 0, 1, 32, 32, 256))
	for i := range s.Salt {
		s.Salt[i] = byte(rng.Uint32())
	}
	if c.superblock {
		c.header.UUID = veritytools.UUID{0: byte(rng.Uint32()), 15: 1}
	}
	c.offset = uint64(s.HashBlock) * rng.Uint64N(3)
	if c.attached {
		c.offset += (c.header.Sectors()*512 + uint64(s.HashBlock) - 1) / uint64(s.HashBlock) * uint64(s.HashBlock)
	}
	must(t, c.header.Check(c.offset, c.superblock))
	if c.fecOffset = uint64(s.DataBlock) * rng.Uint64N(3); c.roots > 0 && rng.IntN(3) == 0 {
		c.fecAttached = true
		end, err := c.header.HashBytes()
		must(t, err)
		c.fecOffset += (end + uint64(s.DataBlock) - 1) / uint64(s.DataBlock) * uint64(s.DataBlock)
	}
	data := make([]byte, c.header.Sectors()*512)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	clear(data[:min(len(data), s.DataBlock*rng.IntN(3))])
	must(t, os.WriteFile(c.data(), data, 0o600))
	for _, name := range []string{c.hash(), c.fec()} {
		if name != c.data() {
			must(t, os.WriteFile(name, nil, 0o600))
		}
	}
	if c.fecAttached { // veritysetup fails to read beyond the end
		grow(t, c.hash(), c.fecOffset)
	}
	return c
}

func (c *choice) data() string { return filepath.Join(c.dir, "data") }

func (c *choice) hash() string {
	if c.attached {
		return c.data()
	}
	return filepath.Join(c.dir, "hash")
}

func (c *choice) fec() string {
	if c.fecAttached {
		return c.hash()
	}
	return filepath.Join(c.dir, "fec")
}

// args returns the options of veritysetup.
func (c *choice) args() (args []string) {
	s := &c.header.Shape
	salt := "-"
	if len(s.Salt) > 0 {
		salt = hex.EncodeToString(s.Salt)
	}
	args = append(args, "--format", fmt.Sprint(s.Version), "--data-block-size", fmt.Sprint(s.DataBlock), "--hash-block-size", fmt.Sprint(s.HashBlock),
		"--data-blocks", fmt.Sprint(s.DataBlocks), "--hash-offset", fmt.Sprint(c.offset), "--hash", s.Algorithm, "--salt", salt)
	if !c.superblock {
		args = append(args, "--no-superblock")
	}
	if c.roots > 0 {
		args = append(args, "--fec-device", c.fec(), "--fec-offset", fmt.Sprint(c.fecOffset), "--fec-roots", fmt.Sprint(c.roots))
	}
	return args
}

// format creates the disk with veritytools.
func (c *choice) format(t *testing.T) (root []byte) {
	size, err := c.header.HashBytes()
	must(t, err)
	grow(t, c.hash(), size)
	plan := c.plan(t)
	if c.roots > 0 {
		grow(t, c.fec(), veritytools.FECBytes(plan, c.header.Shape.DataBlock))
	}
	e := env.Real()
	o := leaf.New(e)
	hash := open(t, o, c.hash(), true)
	data := open(t, o, c.data(), false)
	root, err = veritytools.Create(e, data, hash, &c.header)
	must(t, err)
	if c.superblock {
		must(t, c.header.WriteSuperblock(e, hash, c.offset))
	}
	if c.roots > 0 {
		fec := open(t, o, c.fec(), true)
		must(t, veritytools.CreateFEC(e, data, hash, fec, &c.header, plan))
		must(t, fec.Close())
	}
	must(t, data.Close())
	must(t, hash.Close())
	return root
}

// plan returns the parameters of the parity. The hash disk must have its final size.
func (c *choice) plan(t *testing.T) (plan verity.FEC) {
	if c.roots == 0 {
		return plan
	}
	info, err := os.Stat(c.hash())
	must(t, err)
	plan, err = c.header.PlanFEC(c.fecOffset, uint64(info.Size()), c.fecAttached, c.roots)
	must(t, err)
	return plan
}

func open(t *testing.T, o *leaf.Opener, name string, write bool) blk.Device {
	t.Helper()
	d, _, err := o.Open(name, write)
	must(t, err)
	return d
}

func grow(t *testing.T, name string, size uint64) {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	must(t, os.Truncate(name, max(info.Size(), int64(size))))
}

// read reads all of the disk through the target.
func (c *choice) read(t *testing.T, root []byte) []byte {
	t.Helper()
	e := env.Real()
	control := dm.NewControl(e, leaf.New(e), verity.Type())
	d, err := control.Create("x", "", -1)
	must(t, err)
	l := c.header.Line(c.data(), c.hash(), root)
	if c.roots > 0 {
		l.FEC = c.plan(t)
		l.FEC.Device = c.fec()
	}
	must(t, d.Load([]dm.Spec{dm.NewSpec(0, c.header.Sectors(), l)}, dm.Mode{}))
	must(t, d.Resume(context.Background(), false))
	p := make([]byte, c.header.Sectors()*512)
	must(t, blk.ReadSectors(e, d, p, 0))
	must(t, control.Close())
	return p
}

var rootLine = regexp.MustCompile(`Root hash:\s+([0-9a-f]+)`)

func files(t *testing.T, c *choice) (list [][]byte) {
	t.Helper()
	for _, name := range []string{c.data(), c.hash(), c.fec()} {
		p, err := os.ReadFile(name)
		must(t, err)
		list = append(list, p)
	}
	return list
}

// TestDisksOfVeritysetup checks that udm reads disks made by veritysetup, and that
// veritytools writes the same bytes.
func TestDisksOfVeritysetup(t *testing.T) {
	need.Tools(t, "veritysetup")
	for seed := range uint64(*howMany) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := choose(t, seed, 1)
			args := append([]string{"format", c.data(), c.hash()}, c.args()...)
			t.Log(args)
			original, err := os.ReadFile(c.data())
			must(t, err)
			original = original[:c.header.Sectors()*512]
			if c.superblock {
				args = append(args, "--uuid", c.header.UUID.String())
			}
			out, err := veritysetup(t, args...)
			if err != nil {
				t.Fatal(out)
			}
			m := rootLine.FindStringSubmatch(out)
			if m == nil {
				t.Fatal(out)
			}
			root, err := hex.DecodeString(m[1])
			must(t, err)
			if c.superblock {
				e := env.Real()
				d := open(t, leaf.New(e), c.hash(), false)
				h, err := veritytools.Read(e, d, c.offset)
				must(t, err)
				must(t, d.Close())
				if h.UUID != c.header.UUID || h.Shape.Start != c.header.Shape.Start || !bytes.Equal(h.Shape.Salt, c.header.Shape.Salt) || h.Shape.DataBlocks != c.header.Shape.DataBlocks || h.Shape.Algorithm != c.header.Shape.Algorithm {
					t.Errorf("the superblock says %+v, want %+v", h, c.header)
				}
			}
			for _, name := range []string{c.data(), c.hash(), c.fec()} {
				grow(t, name, sectors(t, name)*512)
			}
			if !bytes.Equal(c.read(t, root), original) {
				t.Fatal("read something else")
			}
			theirs := files(t, c)
			again := choose(t, seed, 1)
			if ours := again.format(t); !bytes.Equal(ours, root) {
				t.Fatalf("root hash %x, want %x", ours, root)
			}
			for i, p := range files(t, again) {
				if !slices.Equal(bytes.TrimRight(p, "\x00"), bytes.TrimRight(theirs[i], "\x00")) {
					t.Errorf("file %d differs", i)
				}
			}
		})
	}
}

func sectors(t *testing.T, name string) uint64 {
	info, err := os.Stat(name)
	must(t, err)
	return uint64(info.Size()+511) / 512
}

// TestVeritysetupTakesOurs checks that veritysetup verifies disks made by veritytools, finds
// a corrupted byte, and corrects it if there is parity.
func TestVeritysetupTakesOurs(t *testing.T) {
	need.Tools(t, "veritysetup")
	for seed := range uint64(*howMany) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := choose(t, seed, 2)
			root := hex.EncodeToString(c.format(t))
			args := append([]string{"verify", c.data(), c.hash(), root}, c.args()...)
			if out, err := veritysetup(t, args...); err != nil {
				t.Fatal(args, out)
			}
			f, err := os.OpenFile(c.data(), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			at := int64(c.header.Sectors()*512) - 1
			p := make([]byte, 1)
			_, err = f.ReadAt(p, at)
			must(t, err)
			p[0] ^= 1
			_, err = f.WriteAt(p, at)
			must(t, err)
			if out, err := veritysetup(t, args...); (err == nil) != (c.roots > 0) {
				t.Fatal(args, err, out)
			}
		})
	}
}
