package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"udm/blk"
	"udm/blk/filedev"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/env"
)

// imageSectors is the size of quickstart's image: 64 MiB.
const imageSectors = 64 << 11

// makeImage creates an image with an ext4 file system, or with pattern data if
// mkfs.ext4 is missing. An existing image is kept.
func makeImage(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var err error
	if mkfs := findProgram("mkfs.ext4"); mkfs != "" {
		err = makeExt4(ctx, mkfs, tmp)
	} else {
		err = makePattern(tmp)
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// findProgram looks for a program in PATH and in root's directories.
func findProgram(name string) string {
	for _, p := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	return ""
}

const greeting = `This file is in an ext4 file system in disk.img, seen through a device of udm.

image        disk.img itself, linear and read-only
striped      a copy of it, over two files in turn
clone-1, -2  writable copies of it; each has a store for what you write
volume       another one, in a thin pool, and volume-snap, a snapshot of that
`

// makeExt4 makes a file system that contains a file.
func makeExt4(ctx context.Context, mkfs, path string) error {
	dir, err := os.MkdirTemp("", "udm-quickstart")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte(greeting), 0o644); err != nil {
		return err
	}
	if err := sparse(path, imageSectors); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, mkfs, "-q", "-F", "-L", "udm", "-d", dir, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", mkfs, err, out)
	}
	return nil
}

// makePattern writes a file in which each 64-bit word is its own offset.
func makePattern(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for at := uint64(0); at < imageSectors*blk.SectorSize && err == nil; at += 8 {
		_, err = w.Write(binary.LittleEndian.AppendUint64(nil, at))
	}
	return errors.Join(err, w.Flush(), f.Close())
}

// sparse creates a sparse file of the given size, replacing a leftover.
func sparse(path string, sectors uint64) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return filedev.Create(path, sectors)
}

// fill copies the image to the striped device, and writes a name to the first sector
// of each writable device; file systems leave that sector free.
func fill(ctx context.Context, s *service.Service, image string) error {
	if err := s.CopyIn(ctx, ctl.ObjectFile{Name: "striped", File: image}); err != nil {
		return err
	}
	for _, name := range []string{"clone-1", "clone-2", "volume"} {
		sector := make([]byte, blk.SectorSize)
		copy(sector, "written to "+name+"\n")
		err := withMapped(s, name, true, func(d blk.Device) error {
			return errors.Join(blk.WriteSectors(env.Real(), d, sector, 0, 0), blk.FlushDevice(env.Real(), d))
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func withMapped(s *service.Service, name string, write bool, f func(blk.Device) error) error {
	d, err := s.Open(ctl.Ref{Name: name}, write)
	if err != nil {
		return err
	}
	return errors.Join(f(d), d.Close())
}
