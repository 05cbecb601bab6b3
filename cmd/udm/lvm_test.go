package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lvmImage writes the disk of a volume group that lvm2 made: its first MiB was kept, and
// the rest is empty.
func lvmImage(t *testing.T) string {
	packed, err := os.ReadFile("testdata/lvm.img.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 32<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

// runUDM is what a command line prints.
func runUDM(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// trimDisk makes the disk's directory, whose length changes the columns, one word.
func trimDisk(text string) string {
	lines := strings.SplitAfterN(text, "\n", 3)
	return "DISK  SIZE  GROUP\nDISK  " + strings.Join(strings.Fields(lines[1])[1:], "   ") + "\n" + lines[2]
}

func TestLVMScan(t *testing.T) {
	path := lvmImage(t)
	got := trimDisk(runUDM(t, "lvm", "scan", path))
	want := `DISK  SIZE  GROUP
DISK  32M   snap

GROUP  VOLUME   SIZE  TYPE      ORIGIN
snap   base     4M    linear
snap   undone   4M    linear
snap   s1       4M    snapshot  base
snap   s-2      4M    snapshot  base
snap   virtual  64M   snapshot  virtual_vorigin
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var s lvmScan
	if err := json.Unmarshal([]byte(runUDM(t, "lvm", "scan", "--json", path)), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Disks) != 1 || s.Disks[0].Group != "snap" || len(s.Groups) != 1 || s.Groups[0].Error != "" || len(s.Groups[0].Volumes) < 8 {
		t.Errorf("got %+v", s)
	}
}
