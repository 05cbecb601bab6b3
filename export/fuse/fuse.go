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
//	punch hole     the range reads as zeroes and its space is given back where the
//	               device can
//	zero range     the range reads as zeroes, its space stays
//	fallocate      within the size: nothing to do; beyond it: ENOSPC
//	mmap           private maps always, shared ones with Linux 6.6 and later
//	SEEK_DATA/HOLE from the device's allocation map; without one all is data
//
// A file that is open counts as a client of its device; a device that fails or
// goes away under an open file gives EIO. Files are 0600, or 0400 when read-only,
// of the user who serves them. A size that changes is seen by the next stat.
//
// # Goroutines and locks
//
// The FUSE library runs a goroutine for each request in flight; a bio's End
// wakes the one that waits. Root.mu is a leaf.
package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"udm/env"
	"udm/export"
)

// Options say how to mount.
type Options struct {
	AllowOther bool // other users may use the files as well
	Debug      bool // print each request to standard error
}

// Server is a mounted directory of devices.
type Server struct {
	dir string
	srv *fuse.Server
}

// maxRequest is the largest read or write that the kernel sends, in bytes.
const maxRequest = 1 << 20

// Mount shows what x has at dir, an existing directory. A mount that a killed
// server left there is taken away first.
func Mount(e env.Env, x export.Exports, dir string, o Options) (*Server, error) {
	if err := clean(dir); err != nil {
		return nil, err
	}
	opts := &fs.Options{MountOptions: fuse.MountOptions{
		AllowOther: o.AllowOther, Debug: o.Debug, FsName: "udm", Name: "udm",
		ExtraCapabilities: fuse.CAP_DIRECT_IO_ALLOW_MMAP, // shared maps, where the kernel (6.6) has them
		MaxWrite:          maxRequest, DisableSplice: true, MaxBackground: 64, DisableXAttrs: true, DirectMountFlags: syscall.MS_NOSUID | syscall.MS_NODEV,
	}}
	srv, err := fs.Mount(dir, &root{env: e, exports: x, inos: make(map[string]uint64)}, opts)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w (is fusermount3 installed, and /dev/fuse there?)", dir, err)
	}
	return &Server{dir, srv}, nil
}

// clean unmounts what a dead server left at dir.
func clean(dir string) error {
	_, err := os.Stat(dir)
	if !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	if syscall.Unmount(dir, syscall.MNT_DETACH) == nil {
		return nil
	}
	if out, err := exec.Command("fusermount3", "-u", "-z", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("a dead mount is in the way at %s: %s", dir, out)
	}
	return nil
}

// Dir is where the files are.
func (s *Server) Dir() string { return s.dir }

// Close unmounts and waits until every request is answered. EBUSY: files are
// open.
func (s *Server) Close() error {
	if err := s.srv.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	s.srv.Wait()
	return nil
}

// root is the directory.
type root struct {
	fs.Inode
	env     env.Env
	exports export.Exports

	mu   sync.Mutex
	inos map[string]uint64 // guarded by mu; inode numbers, for ever
}

func (r *root) find(name string) (export.Info, bool) {
	for _, i := range r.exports.List() {
		if i.Name == name {
			return i, true
		}
	}
	return export.Info{}, false
}

// ino is the same number for the same name each time: programs compare them.
func (r *root) ino(name string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.inos[name]
	if !ok {
		n = uint64(len(r.inos)) + 2
		r.inos[name] = n
	}
	return n
}

// Lookup finds the file of an export.
func (r *root) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	info, ok := r.find(name)
	if !ok {
		return nil, syscall.ENOENT
	}
	attr(&out.Attr, info)
	return r.NewInode(ctx, &node{root: r, name: name}, fs.StableAttr{Mode: syscall.S_IFREG, Ino: r.ino(name)}), 0
}

// Readdir lists the exports whose names can be file names.
func (r *root) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	for _, i := range r.exports.List() {
		list = append(list, fuse.DirEntry{Name: i.Name, Mode: syscall.S_IFREG, Ino: r.ino(i.Name)})
	}
	return fs.NewListDirStream(list), 0
}

// Getattr makes the directory the server's own.
func (r *root) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFDIR | 0o700
	out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
	return 0
}

// attr fills in what stat prints about a file.
func attr(a *fuse.Attr, i export.Info) {
	a.Mode = syscall.S_IFREG | 0o600
	if i.ReadOnly {
		a.Mode = syscall.S_IFREG | 0o400
	}
	a.Size, a.Blocks, a.Blksize = i.Size*512, i.Size, 4096
	a.Nlink = 1
	a.Uid, a.Gid = uint32(os.Getuid()), uint32(os.Getgid())
}
