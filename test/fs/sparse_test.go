package fs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The whences of lseek that concern holes.
const (
	seekData = 3
	seekHole = 4
)

// TestSparseFiles: programs find the holes of volumes in mounted files, and so
// does lseek, also where the volume grows while its file is open.
func TestSparseFiles(t *testing.T) {
	needs(t, "cp", "tar")
	const mib, block = 1 << 20, 64 << 10
	r := newRig(t)
	r.udm("pool", "create", "pool", "--size", "12G")
	r.udm("volume", "create", "pool", "v", "--size", "8G")
	dir := t.TempDir()
	r.udm("mount", dir)
	f, err := os.OpenFile(filepath.Join(dir, "v"), os.O_RDWR, 0)
	r.must(err)
	defer f.Close()
	seek := func(from int64, whence int, want int64) {
		t.Helper()
		got, err := f.Seek(from, whence)
		if want < 0 && !errors.Is(err, syscall.ENXIO) || want >= 0 && (err != nil || got != want) {
			t.Errorf("lseek %d %d: %d, %v; want %d", from, whence, got, err, want)
		}
	}
	seek(0, seekData, -1)
	seek(5, seekHole, 5)
	data := bytes.Repeat([]byte("data"), block/4)
	_, err = f.WriteAt(data, 3*mib)
	r.must(err)
	_, err = f.WriteAt(data, 7<<30)
	r.must(err)
	seek(0, seekData, 3*mib)
	seek(3*mib+7, seekData, 3*mib+7)
	seek(3*mib+7, seekHole, 3*mib+block)
	seek(3*mib+block, seekData, 7<<30)
	seek(7<<30+block, seekData, -1)
	seek(7<<30+block, seekHole, 7<<30+block)

	copied := filepath.Join(r.dir, "copy")
	sh(t, "cp", filepath.Join(dir, "v"), copied)
	sameSparse(t, copied, 8<<30, 2*block)
	sh(t, "tar", "-C", dir, "-Scf", filepath.Join(r.dir, "tar"), "v")
	r.must(os.Remove(copied))
	sh(t, "tar", "-C", r.dir, "-xf", filepath.Join(r.dir, "tar"))
	sameSparse(t, filepath.Join(r.dir, "v"), 8<<30, 2*block)
	got := make([]byte, block)
	c, err := os.Open(filepath.Join(r.dir, "v"))
	r.must(err)
	defer c.Close()
	if _, err := c.ReadAt(got, 3*mib); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the copy differs: %v", err)
	}

	r.udm("volume", "resize", "v", "--size", "10G")
	seek(8<<30, seekData, -1)
	_, err = f.WriteAt(data, 9<<30)
	r.must(err)
	seek(8<<30, seekData, 9<<30)
	seek(9<<30, seekHole, 9<<30+block)
	r.must(f.Close())
	r.udm("unmount", dir)
}

// sameSparse checks the size of a file, and that it takes about the space of its
// data.
func sameSparse(t *testing.T, file string, size, data int64) {
	t.Helper()
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if space := st.Sys().(*syscall.Stat_t).Blocks * 512; st.Size() != size || space < data || space > 2*data {
		t.Errorf("%s has %d bytes in %d bytes of space", file, st.Size(), space)
	}
}
