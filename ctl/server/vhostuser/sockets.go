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
	"udm/ctl/server/handover"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
)

// Sockets is the exports of a set of devices to virtual machines. It is safe for
// concurrent use.
type Sockets struct {
	control *dm.Control
	exports exports.Set
	fs      hostfs.FS
	log     *slog.Logger
	path    string // of exports.json
	op      *env.Mutex

	started bool               // guarded by op
	over    bool               // guarded by op; the daemon is stopping
	list    map[string]*socket // guarded by op; by path
	taken   []func()           // guarded by op; begin to serve what Take has taken
	ending  sync.WaitGroup     // sockets removed from the list
}

// holder is recorded as the holder of devices that front ends use.
const holder dm.Holder = "vhost-user"

// Config configures Sockets; all fields are required.
type Config struct {
	Root    string // directory of exports.json
	FS      hostfs.FS
	Env     env.Env
	Exports exports.Set
	Log     *slog.Logger
}

// New returns Sockets without exports: see [Sockets.Restore].
func New(c Config) *Sockets {
	return &Sockets{
		control: c.Exports.Control, exports: c.Exports.For(holder), fs: c.FS, log: c.Log,
		path: filepath.Join(c.Root, "exports.json"), op: env.NewMutex(c.Env), list: make(map[string]*socket),
	}
}

// spec is the saved form of an export.
type spec struct {
	Minor    uint32 `json:"minor"`
	Path     string `json:"path"`
	Queues   int    `json:"queues,omitempty"`
	Poll     int    `json:"poll,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Mode     uint32 `json:"mode,omitempty"`
}

// Restore reads the saved exports. Call it after the devices are restored and before
// any command changes them.
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
		return fmt.Errorf("cannot restore exports to virtual machines: %s: %w", s.path, err)
	}
	for _, sp := range specs {
		if d, err := s.control.Number(dm.Number{Major: dm.Major, Minor: sp.Minor}); err == nil {
			s.list[sp.Path] = &socket{spec: sp, device: d}
		}
	}
	return s.save()
}

// save writes the exports to exports.json.
func (s *Sockets) save() error {
	specs := make([]spec, 0, len(s.list))
	for _, path := range slices.Sorted(maps.Keys(s.list)) {
		specs = append(specs, s.list[path].spec)
	}
	return hostfs.Replace(s.fs, s.path, specs)
}

// Export serves a device on a socket. Repeating a call has no effect.
func (s *Sockets) Export(d *dm.Device, r ctl.Export) (ctl.Exported, error) {
	s.op.Lock()
	defer s.op.Unlock()
	x := &socket{spec: spec{d.Number().Minor, filepath.Clean(r.Path), r.Queues, r.Poll, r.ReadOnly, r.Mode}, device: d}
	if err := x.check(); err != nil {
		return ctl.Exported{}, err
	}
	if s.over {
		return ctl.Exported{}, dm.Errorf(syscall.EINTR, "the daemon is stopping")
	}
	if old := s.list[x.Path]; old != nil && s.lives(old) {
		if old.spec != x.spec {
			return ctl.Exported{}, dm.Errorf(syscall.EBUSY, "%s already serves %s; end that first: udm unexport %s", x.Path, old.device.Name(), x.Path)
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
		return ctl.Exported{}, fmt.Errorf("%s was not exported because the export cannot be saved: %w", d.Name(), err)
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
		return dm.Errorf(syscall.EBUSY, "a virtual machine uses %s; stop it first (--force removes its disk)", path)
	}
	delete(s.list, path)
	if err := s.save(); err != nil {
		s.list[path] = x
		return fmt.Errorf("%s is still exported because its end cannot be saved: %w", path, err)
	}
	s.end(x)
	return nil
}

// end closes a socket that was removed from the list. It does not wait: a connected
// front end is disconnected when its requests in progress are complete.
func (s *Sockets) end(x *socket) {
	s.ending.Go(x.close)
}

// lives reports whether the device of an export still exists.
func (s *Sockets) lives(x *socket) bool {
	d, err := s.control.Number(x.device.Number())
	return err == nil && d == x.device
}

// prune forgets exports whose devices are gone, and reports whether there were any.
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

// Removed forgets the exports of removed devices.
func (s *Sockets) Removed() {
	s.op.Lock()
	defer s.op.Unlock()
	if s.prune() {
		if err := s.save(); err != nil {
			s.log.Error("cannot save the list of exports", "reason", err)
		}
	}
}

// Resumed tells clients of a device that its size may have changed.
func (s *Sockets) Resumed(d *dm.Device) {
	s.op.Lock()
	defer s.op.Unlock()
	for _, x := range s.list {
		if x.device == d {
			x.changed()
		}
	}
}

// Leave closes the sockets of a group of devices that Hand has not handed over, and lets no
// others be made: another process is to serve them.
func (s *Sockets) Leave(g handover.Group) {
	s.op.Lock()
	defer s.op.Unlock()
	s.started = false
	var all sync.WaitGroup
	for _, x := range s.list {
		if g.Has(x.Minor) {
			all.Go(x.close)
		}
	}
	all.Wait()
}

// Holds reports whether those who hold devices are virtual machines.
func (s *Sockets) Holds(who dm.Holder) bool { return who == holder }

// Retry makes the sockets that are missing.
func (s *Sockets) Retry() {
	s.Removed()
	s.op.Lock()
	defer s.op.Unlock()
	if !s.started || s.over {
		return
	}
	for _, x := range s.list {
		if s.exports.Away != nil && s.exports.Away(x.device) {
			continue // another process serves it
		}
		if before := x.problem; x.serve(s) != nil && x.problem != before {
			s.log.Error("cannot export a device", "device", x.device.Name(), "path", x.Path, "reason", x.problem)
		}
	}
}

// Exports lists the exports in ascending order of paths.
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
