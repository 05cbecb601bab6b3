package vhostuser

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"udm/ctl"
	"udm/ctl/server/exports"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
)

// Sockets is the exports of a set of devices. It is safe for concurrent use.
type Sockets struct {
	control *dm.Control
	exports exports.Set
	fs      hostfs.FS
	log     *slog.Logger
	path    string // of exports.json
	op      *env.Mutex

	started bool               // guarded by op
	over    bool               // guarded by op; the daemon is ending
	list    map[string]*socket // guarded by op; by path
	ending  sync.WaitGroup     // of sockets that are off the list
}

// holder is what front ends count as.
const holder dm.Holder = "vhost-user"

// Config is what Sockets are made from; all of it is needed.
type Config struct {
	Root    string // where exports.json is
	FS      hostfs.FS
	Env     env.Env
	Exports exports.Set
	Log     *slog.Logger
}

// New returns Sockets without any: see [Sockets.Restore].
func New(c Config) *Sockets {
	return &Sockets{
		control: c.Exports.Control, exports: c.Exports.For(holder), fs: c.FS, log: c.Log,
		path: filepath.Join(c.Root, "exports.json"), op: env.NewMutex(c.Env), list: make(map[string]*socket),
	}
}

// spec is an export as it is saved.
type spec struct {
	Minor    uint32 `json:"minor"`
	Path     string `json:"path"`
	Queues   int    `json:"queues,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Mode     uint32 `json:"mode,omitempty"`
}

// Restore reads what is to be served again. It comes after the devices are there, and
// before any command changes them.
func (s *Sockets) Restore() error {
	s.op.Lock()
	defer s.op.Unlock()
	text, err := s.fs.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var specs []spec
	if err == nil {
		err = json.Unmarshal(text, &specs)
	}
	if err != nil {
		return fmt.Errorf("exports to virtual machines cannot be restored: %s: %w", s.path, err)
	}
	for _, sp := range specs {
		if d, err := s.control.Number(dm.Number{Major: dm.Major, Minor: sp.Minor}); err == nil {
			s.list[sp.Path] = &socket{spec: sp, device: d}
		}
	}
	return s.save()
}

// save makes exports.json say what is exported.
func (s *Sockets) save() error {
	specs := make([]spec, 0, len(s.list))
	for _, path := range slices.Sorted(maps.Keys(s.list)) {
		specs = append(specs, s.list[path].spec)
	}
	return hostfs.Replace(s.fs, s.path, specs)
}

// Export serves a device on a socket. Told twice it does nothing.
func (s *Sockets) Export(d *dm.Device, r ctl.Export) (ctl.Exported, error) {
	s.op.Lock()
	defer s.op.Unlock()
	x := &socket{spec: spec{d.Number().Minor, filepath.Clean(r.Path), r.Queues, r.ReadOnly, r.Mode}, device: d}
	if err := x.check(); err != nil {
		return ctl.Exported{}, err
	}
	if s.over {
		return ctl.Exported{}, dm.Errorf(syscall.EINTR, "the daemon is stopping")
	}
	if old := s.list[x.Path]; old != nil && s.lives(old) {
		if old.spec != x.spec {
			return ctl.Exported{}, dm.Errorf(syscall.EBUSY, "%s serves %s already; end that first: udm unexport %s", x.Path, old.device.Name(), x.Path)
		}
		return old.describe(), old.serve(s)
	}
	s.prune()
	if err := x.serve(s); err != nil {
		return ctl.Exported{}, err
	}
	s.list[x.Path] = x
	if err := s.save(); err != nil {
		delete(s.list, x.Path)
		s.end(x)
		return ctl.Exported{}, fmt.Errorf("%s was not exported, because that cannot be saved: %w", d.Name(), err)
	}
	return x.describe(), nil
}

// Unexport ends an export.
func (s *Sockets) Unexport(r ctl.Unexport) error {
	s.op.Lock()
	defer s.op.Unlock()
	path := filepath.Clean(r.Path)
	x := s.list[path]
	if x == nil {
		return dm.Errorf(syscall.ENXIO, "nothing is exported at %s; udm export lists the exports", path)
	}
	if !r.Force && len(x.clients()) > 0 {
		return dm.Errorf(syscall.EBUSY, "a virtual machine uses %s; stop it first (--force takes its disk away)", path)
	}
	delete(s.list, path)
	if err := s.save(); err != nil {
		s.list[path] = x
		return fmt.Errorf("%s is still exported, because its end cannot be saved: %w", path, err)
	}
	s.end(x)
	return nil
}

// end ends a socket that is off the list. Who is connected is cut off when the
// requests that are under way have ended, which is not waited for.
func (s *Sockets) end(x *socket) {
	s.ending.Go(x.close)
}

// lives reports whether the device of an export is there.
func (s *Sockets) lives(x *socket) bool {
	d, err := s.control.Number(x.device.Number())
	return err == nil && d == x.device
}

// prune forgets exports whose devices have gone, and reports whether there were any.
func (s *Sockets) prune() (any bool) {
	for path, x := range s.list {
		if !s.lives(x) {
			delete(s.list, path)
			s.end(x)
			any = true
		}
	}
	return any
}

// Removed forgets the exports of devices that have gone.
func (s *Sockets) Removed() {
	s.op.Lock()
	defer s.op.Unlock()
	if s.prune() {
		if err := s.save(); err != nil {
			s.log.Error("the list of exports cannot be saved", "reason", err)
		}
	}
}

// Resumed tells who uses a device that it may have another size.
func (s *Sockets) Resumed(d *dm.Device) {
	s.op.Lock()
	defer s.op.Unlock()
	for _, x := range s.list {
		if x.device == d {
			x.changed()
		}
	}
}

// Retry makes the sockets that are missing.
func (s *Sockets) Retry() {
	s.Removed()
	s.op.Lock()
	defer s.op.Unlock()
	if !s.started || s.over {
		return
	}
	for _, x := range s.list {
		if before := x.problem; x.serve(s) != nil && x.problem != before {
			s.log.Error("a device cannot be exported", "device", x.device.Name(), "path", x.Path, "reason", x.problem)
		}
	}
}

// Exports tells what is exported, ascending by path.
func (s *Sockets) Exports() []ctl.Exported {
	s.op.Lock()
	defer s.op.Unlock()
	out := make([]ctl.Exported, 0)
	for _, path := range slices.Sorted(maps.Keys(s.list)) {
		if x := s.list[path]; s.lives(x) {
			out = append(out, x.describe())
		}
	}
	return out
}
