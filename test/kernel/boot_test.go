//go:build unix

package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestKernelBoots(t *testing.T) {
	t.Parallel()
	disk := diskFile(t, "a,b:c", 1<<20)
	r := Boot(t, Options{Disks: []string{disk}, Modules: []string{"dm-zero", "dm-snapshot"}, Script: `
		dmsetup create x --table "0 8 linear $D0 1"
		dmsetup table x
		printf hello | dd of=/dev/mapper/x conv=sync bs=512 oflag=direct status=none
		echo file >$OUT/file
		dmsetup targets | cut -d' ' -f1 | sort | tr '\n' ' '`})
	want := "0 8 linear 98:0 1\nerror linear snapshot snapshot-merge snapshot-origin striped zero "
	if r.Output != want {
		t.Errorf("output %q, want %q", r.Output, want)
	}
	if data, err := os.ReadFile(disk); err != nil || string(data[512:517]) != "hello" {
		t.Errorf("disk holds %q, %v", data[512:520], err)
	}
	if data, err := os.ReadFile(filepath.Join(r.Dir, "file")); err != nil || string(data) != "file\n" {
		t.Errorf("file holds %q, %v", data, err)
	}
}

func TestKernelExitCode(t *testing.T) {
	t.Parallel()
	Need(t)
	r, err := Run(context.Background(), Options{Script: "echo before; (exit 7); echo after", Dir: t.TempDir()})
	if err != nil || r.Exit != 7 || r.Output != "before\n" {
		t.Errorf("exit %d, output %q, error %v; want 7, before", r.Exit, r.Output, err)
	}
}

func TestKernelTimeLimit(t *testing.T) {
	t.Parallel()
	Need(t)
	start := time.Now()
	_, err := Run(context.Background(), Options{Script: "sleep 1000", Timeout: 3 * time.Second, Dir: t.TempDir()})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("killed after %v", d)
	}
}

func TestKernelPanic(t *testing.T) {
	t.Parallel()
	Need(t)
	_, err := Run(context.Background(), Options{Script: "echo c >/proc/sysrq-trigger", Timeout: time.Minute, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("error %v, want the kernel's panic", err)
	}
}
