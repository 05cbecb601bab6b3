package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"udm"
	"udm/archive"
	"udm/blk"
)

// Disks that are read from afar, and archives, with servers and stores in the memory of this
// machine, beside programs of others that do the same. No round reads what an earlier one has
// left in the cache.

const farBytes = 64 << 20

// far is the folder of an image that is served, and the rounds so far.
type far struct {
	dir    string
	rounds int
}

func benchFar(r *report) (err error) {
	dir, err := os.MkdirTemp(shm(), "udm-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f := &far{dir: dir}
	if err := os.Setenv("UDM_CACHE", f.at("cache")); err != nil {
		return err
	}
	if err := f.image(); err != nil {
		return err
	}
	return errors.Join(f.nbd(r), f.web(r), f.archives(r))
}

func (f *far) at(name string) string { return filepath.Join(f.dir, name) }

// image makes another image: half of its blocks of 4 KiB are noise, the others are alike.
func (f *far) image() error {
	f.rounds++
	rng := rand.NewChaCha8([32]byte{byte(f.rounds)})
	p := make([]byte, farBytes)
	for at := 0; at < len(p); at += 8192 {
		_, _ = rng.Read(p[at : at+4096]) // never fails
		copy(p[at+4096:], fmt.Sprintf("%08d", at))
	}
	return os.WriteFile(f.at("image"), p, 0o600)
}

// rated is the MB/s of something that handles the whole image.
func rated(do func() error) (float64, error) {
	began := time.Now()
	err := do()
	return farBytes / 1e6 / time.Since(began).Seconds(), err
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", name, args, err, out)
	}
	return nil
}

// read reads a leaf from its beginning to its end, as a program does that copies it.
func read(name string) (err error) {
	s := udm.New()
	defer func() { err = errors.Join(err, s.Close()) }()
	d, err := s.CreateReadOnly("far", fmt.Sprintf("0 %d linear %s 0", farBytes/blk.SectorSize, name))
	p := make([]byte, 1<<20)
	for at := int64(0); at < farBytes && err == nil; at += int64(len(p)) {
		_, err = d.ReadAt(p, at)
	}
	return err
}

func (f *far) nbd(r *report) error {
	socket := f.at("socket")
	kit := exec.Command("nbdkit", "-f", "-U", socket, "file", f.at("image"))
	if err := kit.Start(); err != nil {
		return err
	}
	defer func() { _, _ = kit.Process.Kill(), kit.Wait() }()
	if err := await(socket); err != nil {
		return err
	}
	const group = "far: reading from an NBD server"
	uri := "nbd+unix:///?socket=" + socket
	err := r.group(group,
		measured{"udm, leaf nbd:", "MB/s", func() (float64, error) { return rated(func() error { return read(uri) }) }},
		measured{"nbdcopy", "MB/s", func() (float64, error) { return rated(func() error { return command("nbdcopy", uri, "null:") }) }})
	if err == nil {
		r.atLeast(0.3, r.ratio(group, "udm, leaf nbd:", "nbdcopy"), "reading 1 MiB at a time from an NBD server, over nbdcopy, which has 64 requests under way")
	}
	return err
}

func (f *far) web(r *report) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { http.ServeFile(w, q, f.at("image")) })}
	go func() { _ = s.Serve(l) }() // ends when it is closed
	defer s.Close()
	url := func() string {
		f.rounds++
		return fmt.Sprintf("http://%s/%d", l.Addr(), f.rounds)
	}
	const group = "far: reading an object of a web server"
	err = r.group(group,
		measured{"udm, leaf http:", "MB/s", func() (float64, error) { return rated(func() error { return read(url()) }) }},
		measured{"nbdkit curl, nbdcopy", "MB/s", func() (float64, error) {
			return rated(func() error { return command("nbdcopy", "--", "[", "nbdkit", "curl", url(), "]", "null:") })
		}})
	if err == nil {
		r.atLeast(0.3, r.ratio(group, "udm, leaf http:", "nbdkit curl, nbdcopy"), "reading 1 MiB at a time from a web server, and keeping it, over nbdkit's plugin curl and nbdcopy")
	}
	return err
}

func (f *far) archives(r *report) error {
	const archiving, restoring = "far: archiving", "far: restoring"
	store, err := f.store()
	if err != nil {
		return err
	}
	qcow2, name := f.at("qcow2"), ""
	err = r.group(archiving,
		measured{"udm archive", "MB/s", func() (v float64, err error) {
			if err = f.image(); err == nil {
				v, err = rated(func() error { name, err = backup(store, f.at("image")); return err })
			}
			return v, err
		}},
		measured{"qemu-img convert, to qcow2 with zstd", "MB/s", func() (float64, error) {
			return rated(func() error {
				return command("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", f.at("image"), qcow2)
			})
		}})
	if err != nil {
		return err
	}
	r.atLeast(0.1, r.ratio(archiving, "udm archive", "qemu-img convert, to qcow2 with zstd"), "archiving, by one processor and durable, over qemu-img convert -c, by all")
	err = r.group(restoring,
		measured{"udm archive restore", "MB/s", func() (float64, error) { return rated(func() error { return restoreFrom(store, name, f.at("back")) }) }},
		measured{"udm, leaf archive:", "MB/s", func() (float64, error) {
			err := f.image()
			if err == nil {
				name, err = backup(store, f.at("image"))
			}
			if err != nil {
				return 0, err
			}
			return rated(func() error { return read("archive:" + name + ":" + f.at("store")) })
		}},
		measured{"qemu-img convert, from qcow2", "MB/s", func() (float64, error) {
			return rated(func() error { return command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2, f.at("back")) })
		}})
	if err == nil {
		r.atLeast(0.3, r.ratio(restoring, "udm archive restore", "qemu-img convert, from qcow2"), "restoring over qemu-img convert")
	}
	return err
}

// store makes an archive.
func (f *far) store() (*archive.Archive, error) {
	if err := os.Mkdir(f.at("store"), 0o700); err != nil {
		return nil, err
	}
	dir, err := archive.OpenDir(f.at("store"))
	if err == nil {
		err = archive.Init(context.Background(), dir, nil)
	}
	if err != nil {
		return nil, err
	}
	return archive.Open(context.Background(), dir, nil)
}

// backup archives an image, and returns the id of the snapshot.
func backup(a *archive.Archive, image string) (id string, err error) {
	in, err := os.Open(image)
	if err != nil {
		return "", err
	}
	defer in.Close()
	b, err := a.Begin(context.Background(), archive.BackupOptions{Name: "image", Size: farBytes})
	if err != nil {
		return "", err
	}
	p := make([]byte, 1<<20)
	for at := uint64(0); at < farBytes && err == nil; at += uint64(len(p)) {
		if _, err = in.ReadAt(p, int64(at)); err == nil {
			err = b.Data(at, p)
		}
	}
	if err != nil {
		return "", errors.Join(err, b.Abort())
	}
	info, err := b.Commit("")
	return info.ID, err
}

func restoreFrom(a *archive.Archive, id, file string) error {
	s, err := a.Snapshot(context.Background(), id, nil)
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(s.Restore(context.Background(), out, nil), out.Close())
}
