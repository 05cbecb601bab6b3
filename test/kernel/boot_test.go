//go:build unix

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"udm/test/watchdog"
)

// diskFile makes a sparse file of the given size in bytes.
func diskFile(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKernelBoots looks at all that a script is promised: disks, among them more than can be attached, as files in the shared folder;
// modules, device nodes, output, and the exit code of the command that failed.
func TestKernelBoots(t *testing.T) {
	t.Parallel()
	Need(t)
	disk, dir := diskFile(t, "a,b:c", 1<<20), t.TempDir()
	const files = 18
	for i := range files {
		data := bytes.Repeat([]byte{byte(i)}, 64<<10)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("disk%d", i)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Run(context.Background(), Options{Disks: []string{disk}, Dir: dir, Modules: []string{"dm-zero", "dm-snapshot", "loop"}, Script: `
		dmsetup create x --table "0 8 linear $D0 1"
		dmsetup table x
		printf hello | dd of=/dev/mapper/x conv=sync bs=512 oflag=direct status=none
		for f in $OUT/disk*; do
			l=$(losetup -f --show $f)
			dmsetup create y --table "0 64 linear $l 64"
			echo end | dd of=/dev/mapper/y bs=512 seek=63 conv=sync oflag=direct status=none
			dmsetup remove y
			losetup -d $l
		done
		dmsetup targets | cut -d' ' -f1 | sort | tr '\n' ' '
		(exit 7)
		echo after`})
	want := "0 8 linear 98:0 1\nerror linear snapshot snapshot-merge snapshot-origin striped zero "
	if err != nil || r.Exit != 7 || r.Output != want {
		t.Errorf("exit %d, output %q, %v; want 7, %q", r.Exit, r.Output, err, want)
	}
	if data, err := os.ReadFile(disk); err != nil || string(data[512:517]) != "hello" {
		t.Errorf("disk holds %q, %v", data[512:520], err)
	}
	for i := range files {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("disk%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) != 64<<10 || data[0] != byte(i) || string(data[127*512:127*512+4]) != "end\n" {
			t.Errorf("disk %d: %d bytes, % x … % x", i, len(data), data[:4], data[127*512:127*512+4])
		}
	}
}

func TestKernelHangs(t *testing.T) {
	t.Parallel()
	Need(t)
	_, err := Run(context.Background(), Options{Modules: []string{}, Script: "sleep 100000", Limit: 3 * time.Second, Dir: t.TempDir()})
	var hang *watchdog.Hang
	if !errors.As(err, &hang) {
		t.Errorf("error %v, want a hang", err)
	}
}

func TestKernelPanic(t *testing.T) {
	t.Parallel()
	Need(t)
	_, err := Run(context.Background(), Options{Modules: []string{}, Script: "echo c >/proc/sysrq-trigger", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("error %v, want the kernel's panic", err)
	}
}
