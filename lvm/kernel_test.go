//go:build unix

package lvm

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"udm/blk"
	"udm/blk/filedev"
	"udm/lvm/golden"
	"udm/test/kernel"
)

var update = flag.Bool("update", false, "TestKernelGolden keeps the disks and answers that it gets")

// makeModules are those that the groups of the scripts need.
var makeModules = []string{"dm-mod", "dm-zero", "dm-snapshot", "dm-thin-pool", "dm-mirror", "raid0", "raid1", "raid10", "dm-raid", "dm-cache", "dm-cache-smq", "dm-writecache", "dm-integrity", "crc32c_generic"}

// Volume groups that lvm2 makes in the real kernel now are understood as well as those
// that it made once.
func TestKernelGolden(t *testing.T) {
	kernel.Need(t)
	out := t.TempDir()
	if *update {
		out = goldenDir
	}
	for _, part := range golden.Parts {
		t.Run(part, func(t *testing.T) {
			files := makeDisks(t, part, out)
			if *update {
				pack(t, filepath.Join(out, part+".disks.gz"), files)
			}
			var disks []Disk
			for i, f := range files {
				d, err := filedev.Open(f, filedev.Options{ReadOnly: true})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				disks = append(disks, Disk{diskName(i), d})
			}
			checks[part](t, out, disks)
		})
	}
}

// makeDisks runs a script on new disks.
func makeDisks(t *testing.T, part, out string) []string {
	script := []byte(kernel.LVM("/dev/ubd", `global/thin_check_executable=""`, `global/cache_check_executable=""`, "allocation/raid_stripe_all_devices=0"))
	for _, name := range []string{"common", part} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".sh"))
		if err != nil {
			t.Fatal(err)
		}
		script = append(script, b...)
	}
	files := make([]string, golden.Disks)
	dir := t.TempDir()
	for i := range files {
		files[i] = filepath.Join(dir, "d"+strconv.Itoa(i))
		if err := filedev.Create(files[i], golden.Sectors); err != nil {
			t.Fatal(err)
		}
	}
	kernel.Boot(t, kernel.Options{Disks: files, Modules: makeModules, Script: string(script), Dir: out})
	return files
}

// pack keeps the blocks of disks that are not empty: see golden.Unpack.
func pack(t *testing.T, path string, files []string) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	empty := make([]byte, golden.Block)
	for i, name := range files {
		b, err := os.ReadFile(name)
		if err != nil || len(b) != golden.Sectors*blk.SectorSize {
			t.Fatal(len(b), err)
		}
		for n := 0; n < len(b); n += golden.Block {
			if block := b[n:][:golden.Block]; !bytes.Equal(block, empty) {
				packBlock(t, z, uint32(i), uint32(n/golden.Block), block)
			}
		}
	}
	if err := errors.Join(z.Close(), os.WriteFile(path, packed.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func packBlock(t *testing.T, w io.Writer, disk, n uint32, block []byte) {
	head := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, disk), n)
	if _, err := w.Write(append(head, block...)); err != nil {
		t.Fatal(err)
	}
}
