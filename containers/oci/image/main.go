// Command image writes the container image of udm: its own programs, which are static, and
// those of e2fsprogs and xfsprogs that they run, with their libraries, as they are on this
// machine.
package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"udm/containers/oci"
)

// helpers are the programs that the drivers run, and what these read.
var helpers = []string{"mkfs.ext4", "debugfs", "e2fsck", "resize2fs", "mkfs.xfs", "xfs_growfs"}

// extra are files that are there on some machines only.
var extra = []string{"/etc/mke2fs.conf", "/etc/passwd", "/usr/sbin/xfs_io", "/usr/sbin/xfs_db"}

func main() {
	out := flag.String("o", "udm-image.tar", "file to write: an OCI image layout in a tar archive")
	name := flag.String("name", "localhost/udm:latest", "name of the image")
	bin := flag.String("bin", "bin", "directory of udm, udm-snapshotter and udm-csi")
	flag.Parse()
	if err := write(*out, *name, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func write(out, name, bin string) (err error) {
	own, err := layer(map[string]string{"usr/bin/udm": bin + "/udm", "usr/bin/udm-snapshotter": bin + "/udm-snapshotter", "usr/bin/udm-csi": bin + "/udm-csi"})
	if err != nil {
		return err
	}
	files := make(map[string]string)
	for _, program := range helpers {
		path, err := exec.LookPath(program)
		if err != nil {
			return err
		}
		if err := add(files, path); err != nil {
			return err
		}
	}
	for _, path := range extra {
		if err := add(files, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	below, err := layer(files)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return oci.Write(f, oci.Image{Name: name, Arch: runtime.GOARCH, Layers: [][]byte{below, own}, Entrypoint: []string{"/usr/bin/udm"}})
}

// layer is a layer of files: their paths in the image, and here. The same files make the
// same bytes.
func layer(files map[string]string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := make([]string, 0, len(files))
	dirs := map[string]bool{}
	for name := range files {
		names = append(names, name)
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	list := make([]string, 0, len(dirs))
	for dir := range dirs {
		list = append(list, dir)
	}
	slices.Sort(list)
	for _, dir := range list {
		if err := oci.Dir(w, dir, 0o755); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	for _, name := range names {
		text, err := os.ReadFile(files[name])
		if err != nil {
			return nil, err
		}
		if err := oci.File(w, name, 0o755, text); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// add adds a file, and what the loader needs to run it.
func add(files map[string]string, path string) error {
	if files[path[1:]] != "" {
		return nil
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	files[path[1:]] = path
	f, err := elf.Open(path)
	if err != nil {
		return nil // a script, or text
	}
	defer f.Close()
	if err := interpreter(files, f); err != nil {
		return err
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range names {
		library, err := find(name)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := add(files, library); err != nil {
			return err
		}
	}
	return nil
}

func interpreter(files map[string]string, f *elf.File) error {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		text := make([]byte, p.Filesz)
		if _, err := p.ReadAt(text, 0); err != nil {
			return err
		}
		return add(files, strings.TrimRight(string(text), "\x00"))
	}
	return nil
}

// find is where the loader finds a library.
func find(name string) (string, error) {
	for _, dir := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no library %s", name)
}
