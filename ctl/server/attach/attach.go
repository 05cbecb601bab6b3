package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"udm/ctl"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
	"udm/export/nbd"
)

// files shows devices to programs that know nothing of NBD: as files in mounted
// directories, and as block devices of the kernel: loop devices on top of such
// files, or those of its nbd driver.
//
// What is mounted and attached is saved in ROOT/files.json and comes back when
// the daemon starts again, at the same places where they are free. The directory
// of --mount is not saved: the command line says it again.
//
// Lock order: op, then what device-mapper commands take. The files' requests
// take none of it.
type files struct {
	server *Server
	root   string     // without symbolic links
	helper []string   // guarded by op; the command that calls Helper
	op     *env.Mutex // held while one command runs
	over   bool       // guarded by op; stop has been called

	mounts  map[string]*mounted   // guarded by op; by directory
	own     mounted               // guarded by op; ROOT/files, for what is attached
	devices map[uint32]attachment // guarded by op; by minor

	nbd   *nbd.Server      // of what is attached by nbd; set by start
	links map[uint32]*link // guarded by op; by minor
	cut   atomic.Bool      // nbd is cutting connections off
}

// mounted is a directory that shows devices.
type mounted struct {
	files fileServer // nil: it could not be mounted
	saved bool
}

// fileServer is a fuse.Server, where there is FUSE.
type fileServer interface {
	Mounted() bool
	Unmount() error
	Close() error
	Closed(name string)
}

// savedFiles is what files.json holds.
type savedFiles struct {
	Mounts   []string          `json:"mounts,omitempty"`
	Attached map[uint32]string `json:"attached,omitempty"` // paths of block devices by minor
}

func newFiles(s *Server, root string) *files {
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real // as the kernel tells it
	}
	return &files{server: s, root: root, op: env.NewMutex(s.env),
		mounts: make(map[string]*mounted), devices: make(map[uint32]attachment), links: make(map[uint32]*link)}
}

func (f *files) exports() exports { return exports{f.server, false} }

// mount shows the devices at a directory.
func (f *files) mount(_ context.Context, r ctl.Mount) (struct{}, error) {
	f.op.Lock()
	defer f.op.Unlock()
	if !filepath.IsAbs(r.Dir) {
		return struct{}{}, dm.Errorf(syscall.EINVAL, "%q is no absolute path", r.Dir)
	}
	if err := f.show(filepath.Clean(r.Dir), true); err != nil {
		return struct{}{}, err
	}
	return struct{}{}, f.save()
}

// show mounts at dir unless it is done already.
func (f *files) show(dir string, saved bool) error {
	if f.over {
		return errEnding
	}
	m := f.mounts[dir]
	if m != nil && m.files != nil && m.files.Mounted() {
		m.saved = m.saved || saved
		return nil
	}
	srv, err := mountFiles(f.exports(), dir)
	if err != nil {
		return err
	}
	f.mounts[dir] = &mounted{srv, saved || m != nil && m.saved}
	return nil
}

// unmount ends a mount.
func (f *files) unmount(_ context.Context, r ctl.Mount) (struct{}, error) {
	f.op.Lock()
	defer f.op.Unlock()
	dir := filepath.Clean(r.Dir)
	m := f.mounts[dir]
	if m == nil {
		return struct{}{}, dm.Errorf(syscall.ENXIO, "no devices are mounted at %s", dir)
	}
	err := m.end(r.Lazy)
	if errors.Is(err, syscall.EBUSY) && !r.Lazy {
		return struct{}{}, dm.Errorf(syscall.EBUSY, "%s is in use", dir)
	}
	delete(f.mounts, dir)
	if errors.Is(err, syscall.EBUSY) {
		err = nil // as was asked for
	}
	return struct{}{}, errors.Join(err, f.save())
}

// end unmounts. EBUSY: files were open, and are cut off if lazy.
func (m *mounted) end(lazy bool) error {
	switch {
	case m.files == nil:
		return nil
	case lazy:
		return m.files.Close()
	}
	return m.files.Unmount()
}

var errEnding = dm.Errorf(syscall.EINTR, "the daemon is ending")

// listMounts tells where the devices are shown.
func (f *files) listMounts(context.Context, struct{}) ([]ctl.Mount, error) {
	f.op.Lock()
	defer f.op.Unlock()
	ms := make([]ctl.Mount, 0)
	for _, dir := range slices.Sorted(maps.Keys(f.mounts)) {
		if m := f.mounts[dir]; m.files != nil && m.files.Mounted() {
			ms = append(ms, ctl.Mount{Dir: dir})
		}
	}
	return ms, nil
}

func (f *files) path() string { return filepath.Join(f.root, "files.json") }

// save makes files.json say what is mounted and attached.
func (f *files) save() error {
	s := savedFiles{Attached: make(map[uint32]string)}
	for minor, a := range f.devices {
		s.Attached[minor] = a.path
	}
	for _, dir := range slices.Sorted(maps.Keys(f.mounts)) {
		if f.mounts[dir].saved {
			s.Mounts = append(s.Mounts, dir)
		}
	}
	return hostfs.Replace(f.server.store.fs, f.path(), s)
}

// read returns what files.json says.
func (f *files) read() (s savedFiles, err error) {
	text, err := f.server.store.fs.ReadFile(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}

// start mounts dir, if there is one, and brings back what was there before. It
// fails only for dir: the rest runs without what does not come back.
func (f *files) start(dir string, helper []string) error {
	f.op.Lock()
	defer f.op.Unlock()
	f.helper = helper
	var err error
	f.nbd, err = nbd.New(nbd.Config{Exports: numbered{f.exports()}, Grow: true, Log: f.server.log})
	if err != nil {
		return err
	}
	s, err := f.read()
	if err != nil {
		f.server.log.Error("mounts and attached devices do not come back", "file", f.path(), "reason", err)
	}
	for _, d := range s.Mounts {
		if err := f.show(d, true); err != nil {
			f.mounts[d] = &mounted{nil, true}
			f.server.log.Error("devices cannot be mounted again", "dir", d, "reason", err)
		}
	}
	for minor, path := range s.Attached {
		f.devices[minor] = attachment{path: path}
	}
	f.bringBack()
	if dir == "" {
		return nil
	}
	if err := f.show(dir, false); err != nil {
		return fmt.Errorf("--%w", err)
	}
	return nil
}

// stop ends all mounts and attachments, and says whom it cuts off.
func (f *files) stop() {
	f.op.Lock()
	defer f.op.Unlock()
	f.over = true
	f.detachAll()
	for dir, m := range f.mounts {
		if err := m.end(true); err != nil {
			f.server.log.Warn("files were in use when their mount ended; who has them open gets errors", "dir", dir, "reason", oneLine(err))
		}
	}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
