//go:build unix

package kernel

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestKernelManyDisks uses more disks than can be attached, as files in the shared folder.
func TestKernelManyDisks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const disks = 40
	for i := range disks {
		data := bytes.Repeat([]byte{byte(i)}, 64<<10)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("disk%d", i)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	Boot(t, Options{Dir: dir, Script: `
		for f in $OUT/disk*; do
			l=$(losetup -f --show $f)
			dmsetup create x --table "0 64 linear $l 64"
			dd if=$l of=/dev/mapper/x bs=512 count=1 oflag=direct conv=notrunc status=none
			echo end | dd of=/dev/mapper/x bs=512 seek=63 conv=sync oflag=direct status=none
			dmsetup remove x
			losetup -d $l
		done`})
	for i := range disks {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("disk%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) != 64<<10 || data[0] != byte(i) || string(data[127*512:127*512+4]) != "end\n" {
			t.Errorf("disk %d: %d bytes, % x … % x", i, len(data), data[:4], data[127*512:127*512+4])
		}
	}
}
