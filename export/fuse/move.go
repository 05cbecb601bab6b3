//go:build linux

package fuse

import (
	"context"
	"fmt"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"udm/env"
	"udm/export"
)

// Moved is a mount on its way to another server.
type Moved struct {
	Device *os.File `json:"-"` // the open /dev/fuse
	Dir    string
	Init   []byte      // the kernel's first request
	Nodes  []MovedNode // that the kernel has looked up
	Files  []MovedFile // that are open
	Last   uint64      // the highest number of a file so far
	Again  [][]byte    // requests to be repeated
}

// MovedNode is an inode that the kernel has looked up.
type MovedNode struct {
	Inode, Lookups uint64
	Name           string
}

// MovedFile is an open file. Export is by what its device is opened again.
type MovedFile struct {
	Handle       uint64
	Name, Export string
	Sync         bool
}

// Hand stops reading requests and takes out the mount, once those in flight have ended.
// The server is then of no more use. If ctx ends first, it serves on. It is nil if the
// directory is not mounted any more.
func (s *Server) Hand(ctx context.Context) (*Moved, error) {
	if !s.conn.stop(ctx) {
		return nil, fmt.Errorf("I/O on files in %s has not ended: %w", s.dir, context.Cause(ctx))
	}
	if s.conn.gone.Load() {
		s.root.close()
		return nil, nil
	}
	m := &Moved{Device: s.conn.detach(), Dir: s.dir, Init: s.conn.init, Again: s.conn.again}
	s.root.hand(m)
	s.root.close()
	return m, nil
}

// detach gives up the kernel's end of a stopped connection.
func (c *conn) detach() *os.File {
	fd := c.fd
	c.fd = -1
	c.close()
	return os.NewFile(uintptr(fd), "/dev/fuse")
}

func (r *root) hand(m *Moved) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.Last = r.last
	for inode, n := range r.known {
		m.Nodes = append(m.Nodes, MovedNode{inode, n.lookups, n.name})
	}
	for handle, f := range r.handles {
		x := f.export.Name
		if f.export.Again != nil {
			x = f.export.Again()
		}
		m.Files = append(m.Files, MovedFile{handle, f.name, x, f.sync})
	}
}

// Take takes over a mount; start begins to serve it. The error says why that is
// impossible; nothing has changed then.
func Take(e env.Env, x export.Exports, m *Moved, o Options) (s *Server, start func(), err error) {
	s = newServer(m.Dir, newRoot(e, x), o)
	if err := s.root.take(m, o.Lost); err != nil {
		s.root.close()
		return nil, nil, err
	}
	if err = s.adopt(m); err != nil {
		s.root.close()
		return nil, nil, err
	}
	return s, s.conn.start, nil
}

func (s *Server) adopt(m *Moved) error {
	fd, err := unix.FcntlInt(m.Device.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	m.Device.Close()
	if s.conn, err = newConn(fd, s.library); err != nil {
		return err
	}
	s.conn.init, s.conn.again = m.Init, m.Again
	if err = s.conn.agree(false); err == nil {
		s.dev, err = mountedAt(m.Dir)
	}
	if err != nil {
		s.conn.close()
	}
	return err
}

func (r *root) take(m *Moved, lost func(string, error)) error {
	r.last = m.Last
	for _, n := range m.Nodes {
		r.known[n.Inode] = &node{n.Name, n.Lookups}
	}
	for _, k := range m.Files {
		x, err := r.exports.Open(k.Export)
		if err != nil && lost != nil {
			lost(k.Export, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s, which is open as a file: %w", k.Export, err)
		}
		f := r.newFile(k.Name, x, k.Sync)
		f.handle = k.Handle
		r.open[f], r.handles[k.Handle] = true, f
	}
	return nil
}

var _ fuse.RawFileSystem = (*root)(nil)
