//go:build linux

// Package fuse presents block devices as files in one directory: each export is a
// file with the export's name and the device's size. It needs no privilege except
// the right to mount FUSE.
//
// # What the files do
//
//	read, write    any offset and length; the page cache is bypassed, so that every
//	               client reads what another one wrote, over NBD too
//	write at end   truncated at the device's size; ENOSPC when nothing fits
//	O_TRUNC        changes nothing
//	truncate       EINVAL unless to the size that the device has
//	unlink         EPERM
//	fsync          flush; makes all earlier writes durable
//	O_SYNC         each write is followed by a flush
//	close          does not flush: like a disk, a file needs an explicit flush
//	punch hole     the range reads as zeroes and its space is freed;
//	               EOPNOTSUPP where the device cannot
//	zero range     the range reads as zeroes, its space stays
//	fallocate      within the size: nothing to do; beyond it: ENOSPC
//	mmap           private maps always, shared ones with Linux 6.6 and later
//	SEEK_DATA/HOLE from the device's allocation map; without one everything is data
//	st_blocks      one sector less than the size, so that cp and tar look for holes
//	statfs         its block size is the device's discard granularity, which the
//	               kernel's loop driver adopts
//
// An open file counts as a client of its device. If the device fails or is
// removed under an open file, I/O returns EIO or ENXIO. Files have mode 0600, or
// 0400 if read-only, and belong to the serving user. The next stat sees a changed
// size.
//
// The server receives a copy of the data of a write, never the client's pages, so
// the data is stable whatever the client does.
//
// # In the same process
//
// A process that serves files must not use them itself. A page fault on a mapped
// file holds a resource that the server needs to answer it. A process that is
// killed while it waits for its own answer never exits, since the kernel gives up
// on a server only after it has exited. A child process may use the files.
//
// # Goroutines and locks
//
// There is a goroutine for each request in flight; a bio's End wakes it. See conn. root.mu
// and conn.mu are leaves; no I/O runs under them.
//
// # Handing over
//
// A server can hand its mount to another one, which may be in another process: Hand, then
// Take. The kernel's end is the open /dev/fuse; requests wait there meanwhile. What goes
// along is what the kernel knows by number: inodes that it has looked up, open files; and
// requests that failed while the server was stopped, which nobody has had an answer to.
package fuse

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"udm/env"
	"udm/export"
)

// Options configure a mount.
type Options struct {
	AllowOther bool // other users may use the files, too, if their modes allow it
	Debug      bool // print each request to standard error
	// Lost is called by Take for an open file whose export cannot be opened again: its users
	// get errors. nil: Take fails then.
	Lost func(export string, why error)
}

// Server is a mounted directory of devices.
type Server struct {
	dir     string // without symbolic links
	dev     device // of the mount; identifies its connection in the kernel
	root    *root
	library *fuse.ProtocolServer
	conn    *conn
}

const (
	// maxRequest is the largest read or write that the kernel sends, in bytes.
	maxRequest = 1 << 20
	// maxBackground limits the asynchronous requests that the kernel has in
	// flight for all files together. It is high enough never to apply: requests
	// of a suspended device must not block the other devices. Users of the files
	// have limits of their own, such as a loop device with its 128 requests.
	maxBackground = 1 << 14
)

// Mount presents the exports of x at dir, an existing directory. It first removes
// a mount that a killed server left there.
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
	s := newServer(dir, newRoot(e, x), o)
	fd, err := o.mount(dir)
	if err != nil {
		return nil, mountFailed(dir, err)
	}
	if err := s.begin(fd); err != nil {
		return nil, errors.Join(err, unmount(dir, syscall.MNT_DETACH))
	}
	return s, nil
}

func newServer(dir string, r *root, o Options) *Server {
	return &Server{dir: dir, root: r, library: fuse.NewProtocolServer(r, o.library())}
}

// begin serves a new mount.
func (s *Server) begin(fd int) (err error) {
	if s.conn, err = newConn(fd, s.library); err != nil {
		return err
	}
	if err = s.conn.greet(); err != nil {
		s.conn.close()
		return err
	}
	s.conn.start()
	if s.dev, err = mountedAt(s.dir); err == nil {
		s.refusePolling()
	}
	return err
}

func (o Options) library() *fuse.MountOptions {
	return &fuse.MountOptions{
		AllowOther: o.AllowOther, Debug: o.Debug, Name: "udm",
		MaxWrite: maxRequest, MaxBackground: maxBackground, DisableSplice: true, DisableXAttrs: true, DisableReadDirPlus: true,
		// Asynchronous I/O of a program or a loop device runs in parallel; shared
		// maps work with Linux 6.6 and later.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP |
			fuse.CAP_ATOMIC_O_TRUNC, // else it looks like a truncate,
	}
}

// Dir is the directory of the files.
func (s *Server) Dir() string { return s.dir }

// Mounted reports whether the directory is still mounted: others may have
// unmounted it.
func (s *Server) Mounted() bool {
	dev, err := mountedAt(s.dir)
	return err == nil && dev == s.dev
}

// Unmount ends the server if none of its files is in use. Otherwise it returns
// EBUSY and changes nothing.
func (s *Server) Unmount() error {
	if s.Mounted() {
		if err := unmount(s.dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", s.dir, err)
		}
	}
	<-s.conn.ended
	s.root.close()
	return nil
}

// Close ends the server: it answers the requests in flight, releases all open
// exports and unmounts the directory. EBUSY means that files were in use; their
// users get errors from now on.
func (s *Server) Close() error {
	err := s.Unmount()
	if err == nil || !errors.Is(err, syscall.EBUSY) {
		return err
	}
	lazy := unmount(s.dir, syscall.MNT_DETACH)
	s.root.close()
	if abort(s.dev) == nil {
		<-s.conn.ended
	}
	return errors.Join(err, lazy)
}

// Closed returns once no client has the file of a name open. A close(2) returns
// to its caller shortly before the server is notified.
func (s *Server) Closed(name string) { s.root.closed(name) }

// Clients lists the open files.
func (s *Server) Clients() []export.Client {
	list := make([]export.Client, 0)
	for _, f := range s.root.files() {
		list = append(list, export.Client{Export: f.name, ReadOnly: f.export.ReadOnly})
	}
	return list
}
