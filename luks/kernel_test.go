//go:build unix

package luks

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// TestKernel has cryptsetup open disks of both versions in a real kernel: it reads
// what was written here, and what it writes is read here.
func TestKernel(t *testing.T) {
	kernel.Need(t)
	need.Tools(t, "cryptsetup")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "pass"), []byte("pass"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "new"), blktest.Pattern(64, 64, 7), 0o600))
	var images []string
	for version := 1; version <= 2; version++ {
		f := small(version)
		f.Offset = 18 << 20
		if version == 2 {
			f.SectorSize = 4096
		}
		path := image(t, 20)
		create(t, device(t, path), f, "pass")
		withPlain(t, path, func(d blk.Device) { must(t, blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 64, 5), 0, 0)) })
		images = append(images, path)
	}
	kernel.Boot(t, kernel.Options{Disks: images, Dir: dir, Script: `
		for i in 0 1; do
			eval "disk=\$D$i"
			cryptsetup open --disable-keyring --key-file $OUT/pass $disk x
			dd if=/dev/mapper/x of=$OUT/read$i bs=4k count=8 iflag=direct status=none
			dd if=$OUT/new of=/dev/mapper/x bs=4k seek=8 count=8 oflag=direct status=none
			cryptsetup close x
		done`})
	for i, path := range images {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("read%d", i)))
		if err != nil || !bytes.Equal(got, blktest.Pattern(0, 64, 5)) {
			t.Errorf("version %d: the kernel has read something else, %v", i+1, err)
		}
		withPlain(t, path, func(d blk.Device) {
			p := make([]byte, 64*blk.SectorSize)
			must(t, blk.ReadSectors(env.Real(), d, p, 64))
			if err := blktest.Check(p, 64, 7); err != nil {
				t.Errorf("version %d: written by the kernel: %v", i+1, err)
			}
		})
	}
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
