package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"udm/test/need"
)

// The image is an image layout whose programs run with nothing else around them; the
// same programs make the same image.
func TestImage(t *testing.T) {
	need.Root(t)
	need.Tools(t, helpers...)
	dir := t.TempDir()
	for _, name := range []string{"udm", "udm-snapshotter", "udm-csi"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var images [2][]byte
	for i := range images {
		out := filepath.Join(dir, "image.tar")
		if err := write(out, "localhost/udm:test", dir); err != nil {
			t.Fatal(err)
		}
		images[i], _ = os.ReadFile(out)
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("the second image differs from the first one")
	}
	root := filepath.Join(dir, "root")
	unpack(t, images[0], root)
	for _, name := range helpers {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "-V")
		cmd.Path, cmd.Dir, cmd.SysProcAttr = path, "/", &syscall.SysProcAttr{Chroot: root}
		out, err := cmd.CombinedOutput()
		var ended *exec.ExitError // resize2fs has no -V and says so
		if err != nil && (!errors.As(err, &ended) || ended.ExitCode() != 1) || !bytes.Contains(out, []byte("version")) && !bytes.Contains(out, []byte(name)) && !bytes.Contains(out, []byte("mke2fs")) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// unpack unpacks the layers of an image.
func unpack(t testing.TB, image []byte, root string) {
	t.Helper()
	each(t, image, func(h *tar.Header, text []byte) {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if !strings.HasPrefix(h.Name, "blobs/") || err != nil {
			return // JSON
		}
		layer, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		each(t, layer, func(h *tar.Header, text []byte) {
			path := filepath.Join(root, h.Name)
			if h.Typeflag == tar.TypeDir {
				err = os.MkdirAll(path, 0o755)
			} else {
				err = os.WriteFile(path, text, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	})
}

func each(t testing.TB, archive []byte, f func(h *tar.Header, text []byte)) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		f(h, text)
	}
}
