//go:build containerd

package test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"udm/containers/oci"
)

// sparseSize is the size of a file that has a byte at its end and nothing else.
const sparseSize = 8 << 20

// layers are what can go wrong in an unpack: hard links, extended attributes, sparse
// files, devices, and what a later layer does to them by whiteouts.
func layers(t testing.TB, n int) [][]byte {
	t.Helper()
	first := archive(t, func(w *tar.Writer) error {
		h := func(h *tar.Header, text string) error {
			h.Size = int64(len(text))
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			_, err := w.Write([]byte(text))
			return err
		}
		for _, step := range []func() error{
			func() error { return oci.Dir(w, "dir", 0o755) },
			func() error { return oci.Dir(w, "opaque", 0o755) },
			func() error { return oci.File(w, "dir/removed", 0o644, []byte("removed")) },
			func() error { return oci.File(w, "opaque/hidden", 0o644, []byte("hidden")) },
			func() error { return oci.File(w, "suid", 0o4755, []byte("suid")) },
			func() error {
				return h(&tar.Header{Typeflag: tar.TypeReg, Name: "xattr", Mode: 0o600, Uid: 1000, Gid: 1001,
					PAXRecords: map[string]string{"SCHILY.xattr.user.k": "value"}}, "xattr")
			},
			func() error {
				return h(&tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "xattr", Mode: 0o600, Uid: 1000, Gid: 1001}, "")
			},
			func() error { return h(&tar.Header{Typeflag: tar.TypeSymlink, Name: "soft", Linkname: "dir"}, "") },
			func() error { return h(&tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}, "") },
			func() error { return oci.File(w, "sparse", 0o600, append(make([]byte, sparseSize-1), 1)) },
			func() error { return oci.File(w, "changed", 0o600, []byte("before")) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
	all := [][]byte{first, archive(t, func(w *tar.Writer) error {
		for _, f := range []string{"dir/.wh.removed", "opaque/.wh..wh..opq", "opaque/new", "changed"} {
			if err := oci.File(w, f, 0o600, []byte("after")); err != nil {
				return err
			}
		}
		return nil
	})}
	for i := len(all); i < n; i++ {
		all = append(all, archive(t, func(w *tar.Writer) error { return oci.File(w, fmt.Sprint("layer-", i), 0o600, []byte("layer")) }))
	}
	return all
}

func archive(t testing.TB, f func(w *tar.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := f(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// image writes an image of some layers to a file. Each has one of its own, so that images
// do not share all.
func image(t testing.TB, dir, name string, n int) string {
	t.Helper()
	own := archive(t, func(w *tar.Writer) error { return oci.File(w, "name", 0o600, []byte(name)) })
	var b bytes.Buffer
	err := oci.Write(&b, oci.Image{Name: name, Arch: runtime.GOARCH, Layers: append([][]byte{own}, layers(t, n)...), Entrypoint: []string{"/none"}})
	path := filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".tar")
	if err == nil {
		err = os.WriteFile(path, b.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// check checks what an image was unpacked to.
func check(t testing.TB, dir, name string, n int) {
	t.Helper()
	text := func(file, want string) {
		t.Helper()
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	text("name", name)
	text("changed", "after")
	text("opaque/new", "after")
	text("hard", "xattr")
	for i := 2; i < n; i++ {
		text(fmt.Sprint("layer-", i), "layer")
	}
	for _, gone := range []string{"dir/removed", "opaque/hidden", "lost+found", "opaque/.wh..wh..opq"} {
		if _, err := os.Lstat(filepath.Join(dir, gone)); err == nil {
			t.Errorf("there is %s", gone)
		}
	}
	stat := func(file string) (st syscall.Stat_t) {
		t.Helper()
		if err := syscall.Lstat(filepath.Join(dir, file), &st); err != nil {
			t.Error(err)
		}
		return st
	}
	if x, h := stat("xattr"), stat("hard"); x.Ino != h.Ino || x.Nlink != 2 || x.Uid != 1000 || x.Gid != 1001 {
		t.Errorf("xattr is %+v, hard is %+v", x, h)
	}
	if s := stat("suid"); s.Mode&0o7777 != 0o4755 {
		t.Errorf("suid has mode %o", s.Mode)
	}
	if f := stat("fifo"); f.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("fifo has mode %o", f.Mode)
	}
	p := make([]byte, 100)
	if k, err := unix.Lgetxattr(filepath.Join(dir, "xattr"), "user.k", p); err != nil || string(p[:k]) != "value" {
		t.Errorf("user.k is %q, %v", p[:max(k, 0)], err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "sparse")); err != nil || !bytes.Equal(got, append(make([]byte, sparseSize-1), 1)) {
		t.Errorf("sparse has %d bytes, %v", len(got), err)
	}
}
