//go:build linux

package vhost

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"udm/test/need"
	"udm/test/watchdog"
)

var (
	library  = flag.String("libblkio", "", "folder of libblkio and its header: see libblkio.sh")
	requests = flag.Int("requests", 20_000, "requests of TestLibblkio on each disk")
)

// TestLibblkio has libblkio read and write a device over a file and a thin volume, 64 requests at
// once in two queues, while regions of memory are added and removed.
func TestLibblkio(t *testing.T) {
	if *library == "" {
		return // make test-vhost has one
	}
	need.Tools(t, "gcc")
	d := startDaemon(t)
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, diskLen))
	d.makeDisks(image)
	program := compile(t)
	for i, path := range d.sockets(".sock") {
		seed := rand.Uint32()
		cmd := exec.Command(program, path, fmt.Sprint(*requests), fmt.Sprint(seed))
		out, err := watched(cmd)
		t.Logf("%s, seed %d: %s", disks[i], seed, out)
		if err != nil {
			t.Error(err)
		}
	}
}

// compile builds testdata/blkio.c with the library.
func compile(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(*library, "usr/lib/*/libblkio.so.1"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s holds the libraries %q: %v", *library, found, err)
	}
	out := filepath.Join(t.TempDir(), "blkio")
	cmd := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-I", filepath.Join(*library, "usr/include"), "-o", out,
		"testdata/blkio.c", found[0], "-Wl,-rpath,"+filepath.Dir(found[0]))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// watched runs a program that ends with this process, or when it hangs.
func watched(cmd *exec.Cmd) (string, error) {
	out, err := os.CreateTemp("", "udm-blkio")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = watchdog.Run(cmd, 10*time.Minute)
	text, rerr := os.ReadFile(out.Name())
	if err == nil {
		err = rerr
	}
	return string(text), err
}
