package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"udm/blk"
	"udm/env"
)

// HostFiles keep what [Files] promises.
func TestHostFiles(t *testing.T) {
	var h HostFiles
	dir := filepath.Join(t.TempDir(), "deep", "down")
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, h.Make([]File{{Path: a, Size: 1 << 20, Text: []byte("head")}, {Path: b, Size: 700}}))
	if err := h.Make([]File{{Path: a}}); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("made twice: %v", err)
	}
	st, err := h.Stat(a)
	if must(t, err); st.Size != 1<<20 || st.Allocated >= 1<<20 || st.ModTime == 0 {
		t.Errorf("%+v", st)
	}
	if i, err := os.Stat(a); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", i.Mode(), err)
	}
	c := filepath.Join(dir, "c")
	for range 2 { // the second time they are there
		must(t, h.Link([]Names{{a, c}}))
	}
	if err := h.Link([]Names{{b, c}}); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("linked over another: %v", err)
	}
	if !h.Same(a, c) || h.Same(a, b) || h.Same(a, filepath.Join(dir, "no")) {
		t.Error("which files are the same is wrong")
	}
	must(t, os.WriteFile(b, slices.Concat(make([]byte, 512), []byte("tail")), 0o600))
	tail, err := h.ReadTail(b)
	if must(t, err); string(tail) != "tail" {
		t.Errorf("the tail is %q", tail)
	}
	must(t, h.Resize(a, 1<<21, false))
	d, err := h.Open(c, false)
	must(t, err)
	p := make([]byte, blk.SectorSize)
	must(t, errors.Join(blk.ReadSectors(env.Real(), d, p, 0), d.Close()))
	if got := d.Limits().Size; string(p[:4]) != "head" || got != 1<<21/blk.SectorSize {
		t.Errorf("%q, %d sectors", p[:4], got)
	}
	for range 2 {
		must(t, h.Remove([]string{a, b}))
	}
	names, err := h.List(dir)
	if must(t, err); !slices.Equal(names, []string{"c"}) {
		t.Errorf("%q", names)
	}
	if names, err := h.List(filepath.Join(dir, "no")); names != nil || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := h.Stat(a); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%v", err)
	}
}

// A file that is to be whole takes all its space, and so does what is added to it.
func TestWholeFiles(t *testing.T) {
	var h HostFiles
	dir := t.TempDir()
	if !fallocates(t, dir) {
		t.Logf("files in %s cannot be given space before they are written", dir)
		return
	}
	path := filepath.Join(dir, "a")
	must(t, h.Make([]File{{Path: path, Size: 1 << 20, Whole: true}}))
	for _, size := range []uint64{1 << 20, 2 << 20} {
		must(t, h.Resize(path, size, true))
		if st, err := h.Stat(path); err != nil || st.Size != size || st.Allocated < size {
			t.Errorf("%+v %v", st, err)
		}
	}
}

// fallocates reports whether the file system can give space to files.
func fallocates(t *testing.T, dir string) bool {
	f, err := os.CreateTemp(dir, "")
	must(t, err)
	defer f.Close()
	return syscall.Fallocate(int(f.Fd()), 0, 0, 4096) == nil
}
