//go:build linux

// Package fuse shows block devices as files: each export is a file of the
// device's size under its name in one directory. No privilege is needed but the
// right to mount FUSE.
//
// # What the files do
//
//	read, write    any offset and length; the page cache is bypassed, so that what
//	               one client writes every other reads, over NBD too
//	write at end   cut at the device's size; ENOSPC when nothing fits
//	truncate       accepted, changes nothing
//	fsync          flush; when it has returned, what was written before is durable
//	O_SYNC         each write is followed by a flush
//	close          flushes nothing: like a disk, a file has to be told
//	punch hole     the range reads as zeroes and its space is given back;
//	               EOPNOTSUPP where the device cannot
//	zero range     the range reads as zeroes, its space stays
//	fallocate      within the size: nothing to do; beyond it: ENOSPC
//	mmap           private maps always, shared ones with Linux 6.6 and later
//	SEEK_DATA/HOLE from the device's allocation map; without one all is data
//	st_blocks      one less than the size has, so that cp and tar look for holes
//	statfs         its block size is the device's granularity of discards, which
//	               the kernel's loop driver takes for its own
//
// A file that is open counts as a client of its device; a device that fails or
// goes away under an open file gives EIO or ENXIO. Files are 0600, or 0400 when
// read-only, of the user who serves them. A size that changes is seen by the
// next stat.
//
// The data of a write is the server's own copy when it gets here (the kernel hands
// over no pages of the client's), so that it is stable whatever the client does.
//
// # In the same process
//
// A process that serves files must not use them itself. A page fault on a mapped
// one holds what the server needs to answer it; and a process that is killed while
// it waits for its own answer stays for ever, since the kernel gives up on a
// server only when it has gone. A child process may use them.
//
// # Goroutines and locks
//
// The FUSE library runs a goroutine for each request in flight; a bio's End
// wakes the one that waits. root.mu is a leaf; no I/O runs under it.
package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"udm/env"
	"udm/export"
)

// Options say how to mount.
type Options struct {
	AllowOther bool // other users may use the files as well, as far as their modes allow
	Debug      bool // print each request to standard error
}

// Server is a mounted directory of devices.
type Server struct {
	dir  string // without symbolic links
	dev  device // of the mount; names its connection in the kernel
	root *root
	srv  *fuse.Server
}

const (
	// maxRequest is the largest read or write that the kernel sends, in bytes.
	maxRequest = 1 << 20
	// maxBackground is how many asynchronous requests the kernel sends at a
	// time for all files together. It is so high that it limits nothing: those
	// of a suspended device must not keep the others from working. Who uses the
	// files has limits of his own, as a loop device with its 128 requests.
	maxBackground = 1 << 14
)

// Mount shows what x has at dir, an existing directory. A mount that a killed
// server left there is taken away first.
func Mount(e env.Env, x export.Exports, dir string, o Options) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := vacate(dir); err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	r := newRoot(e, x)
	srv, err := fs.Mount(dir, r, o.fs())
	if err != nil {
		return nil, mountFailed(dir, err)
	}
	s := &Server{dir: dir, root: r, srv: srv}
	if s.dev, err = mountedAt(dir); err == nil {
		err = keepFromChildren()
	}
	if err != nil {
		return nil, errors.Join(err, unmount(dir, syscall.MNT_DETACH))
	}
	return s, nil
}

func (o Options) fs() *fs.Options {
	m := fuse.MountOptions{
		AllowOther: o.AllowOther, Debug: o.Debug, FsName: "udm", Name: "udm", DirectMount: os.Geteuid() == 0,
		MaxWrite: maxRequest, MaxBackground: maxBackground, DisableSplice: true, DisableXAttrs: true,
		// Asynchronous I/O of a program, or a loop device, goes out side by
		// side; shared maps, where the kernel (6.6) has them.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
	}
	if o.AllowOther {
		m.Options = []string{"default_permissions"}
	}
	return &fs.Options{MountOptions: m}
}

// Dir is where the files are.
func (s *Server) Dir() string { return s.dir }

// Mounted reports whether the files are still there: others may have unmounted
// them.
func (s *Server) Mounted() bool {
	dev, err := mountedAt(s.dir)
	return err == nil && dev == s.dev
}

// Unmount ends the server if nobody uses its files. EBUSY: somebody does, and
// nothing has changed.
func (s *Server) Unmount() error {
	if s.Mounted() {
		if err := unmount(s.dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", s.dir, err)
		}
	}
	s.srv.Wait()
	s.root.close()
	return nil
}

// Close ends the server: requests that are under way are answered, all files are
// closed towards their devices, and the directory is free. EBUSY tells that files
// were in use: whoever has them open gets errors from now on.
func (s *Server) Close() error {
	err := s.Unmount()
	if err == nil || !errors.Is(err, syscall.EBUSY) {
		return err
	}
	lazy := unmount(s.dir, syscall.MNT_DETACH)
	s.root.close()
	if abort(s.dev) == nil {
		s.srv.Wait()
	}
	return errors.Join(err, lazy)
}

// Closed returns once no client has the file of a name open. A close(2) returns
// to its caller a moment before the server hears of it.
func (s *Server) Closed(name string) { s.root.closed(name) }

// Clients tells which files are open.
func (s *Server) Clients() []export.Client {
	list := make([]export.Client, 0)
	for _, f := range s.root.files() {
		list = append(list, export.Client{Export: f.name, ReadOnly: f.export.ReadOnly})
	}
	return list
}
