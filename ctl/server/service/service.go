// Package service is the daemon without its sockets: the devices of one root, and the
// commands about them. It implements [ctl.Service], as the client of a daemon does,
// for programs that embed it. What a command changes is saved before it returns, so
// whoever goes through it cannot have devices that a restart forgets.
//
//	made by New ── Restore ──► serving ── Close ──► closed: devices flushed, disks closed
//
// Until it is restored it answers questions, and commands that change something wait.
//
// Lock order: Service.naming (an env.Mutex, held while a device is renamed and that
// is saved), the locks of packages attach, state and dm. None is held while a command
// of the device mapper runs that can wait.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/blk/leaf"
	"udm/ctl"
	"udm/ctl/server/attach"
	"udm/ctl/server/events"
	"udm/ctl/server/exports"
	"udm/ctl/server/frontend"
	"udm/ctl/server/state"
	"udm/ctl/server/vhostuser"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
	"udm/volume"
)

var _ ctl.Service = (*Service)(nil)

// Service holds the devices of one root and carries out commands about them. It is
// safe for concurrent use.
type Service struct {
	// FrontEnd is the list that the command of this name tells of; who embeds the
	// service starts and ends what is in it.
	FrontEnd frontend.List

	env     env.Env
	control *dm.Control
	opener  state.Opener
	state   *state.State
	kernel  *attach.Kernel
	exports exports.Set
	sockets *vhostuser.Sockets
	events  *events.Hub
	volumes *volume.Manager
	log     *slog.Logger
	program string
	naming  *env.Mutex // held while a device is renamed and that is saved

	restored atomic.Bool
	wake     env.Wait // woken when restored
}

// Config is what a service is made from. Root and Types are needed.
type Config struct {
	Root    string // directory of the saved state; made if missing
	Program string // version to report
	Types   []*dm.Type
	Log     *slog.Logger // nil: none

	Env    env.Env      // nil: [env.Real]
	Opener state.Opener // of disks; nil: [leaf.Opener]
	FS     hostfs.FS    // that Root is in; nil: [hostfs.Disk]
	Files  volume.Files // of volumes; nil: [volume.HostFiles]
	// Control is the set of devices, nil to make one: for tests that look at it,
	// since what is changed in it directly is not saved.
	Control *dm.Control
	// Helper is a command that calls [attach.Helper]; without one nothing can be
	// attached as a block device.
	Helper []string
}

func (c *Config) setDefaults() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Env == nil {
		c.Env = env.Real()
	}
	if c.Opener == nil {
		c.Opener = leaf.New(c.Env)
	}
	if c.FS == nil {
		c.FS = hostfs.Disk{}
	}
	if c.Files == nil {
		c.Files = volume.HostFiles{}
	}
	if c.Control == nil {
		c.Control = dm.NewControl(c.Env, c.Opener, c.Types...)
	}
	c.Control.SetLog(c.Log)
}

// New returns a service that has no devices yet: see Restore.
func New(c Config) (*Service, error) {
	c.setDefaults()
	hub := events.NewHub(c.Env)
	saved, err := state.New(state.Config{Root: c.Root, FS: c.FS, Env: c.Env, Control: c.Control, Opener: c.Opener, Log: c.Log})
	if err != nil {
		return nil, err
	}
	s := &Service{env: c.Env, control: c.Control, opener: c.Opener, state: saved, events: hub,
		log: c.Log, program: c.Program, naming: env.NewMutex(c.Env), wake: c.Env.NewWait()}
	c.Control.SetWatch(s.watch)
	s.volumes = volume.New(volume.Machine{Env: c.Env, Devices: devices{s}, Files: c.Files, FS: c.FS, Root: c.Root, Log: c.Log})
	s.exports = exports.Set{Control: c.Control, Waiting: saved.Waiting, Contexts: s.contexts, Holder: dm.Program}
	s.sockets = vhostuser.New(vhostuser.Config{Root: c.Root, FS: c.FS, Env: c.Env, Exports: s.exports, Log: c.Log})
	s.kernel, err = attach.New(attach.Config{Root: c.Root, FS: c.FS, Env: c.Env, Exports: s.exports, Log: c.Log, Helper: c.Helper})
	return s, err
}

// Restore makes every saved device and loads every table that can be loaded, and
// completes or undoes the operations on volumes that were under way: what takes long
// goes on afterwards. It is called once; commands that change something wait until
// it has returned. The error tells of saved state that cannot be used; the rest runs.
func (s *Service) Restore(ctx context.Context) error {
	err := errors.Join(s.state.Restore(ctx), s.volumes.Recover(ctx))
	s.state.Retry(ctx) // tables that have waited for what was undone or completed
	err = errors.Join(err, s.sockets.Restore())
	s.tellChangedBases()
	s.restored.Store(true)
	s.wake.Wake()
	return err
}

// settled waits until Restore has returned.
func (s *Service) settled(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.wake.Wake)
	defer stop()
	s.wake.Until(func() bool { return s.restored.Load() || ctx.Err() != nil })
	if !s.restored.Load() {
		return dm.Errorf(syscall.EINTR, "interrupted while the daemon restores its devices")
	}
	return nil
}

// begin begins a command that changes a device.
func (s *Service) begin(ctx context.Context, r ctl.Ref) (*dm.Device, error) {
	if err := s.settled(ctx); err != nil {
		return nil, err
	}
	return s.find(r)
}

// Retry tries what is missing since a restart again: tables that wait for their
// disks, block devices that wait for their tables. To be called now and then.
func (s *Service) Retry(ctx context.Context) {
	s.state.Retry(ctx)
	s.kernel.Retry()
	s.sockets.Retry()
}

// Exports is the devices for servers that offer them to clients.
func (s *Service) Exports() exports.Set { return s.exports }

// Kernel is what this machine's kernel shows of the devices: two front ends.
func (s *Service) Kernel() *attach.Kernel { return s.kernel }

// Sockets is the exports to virtual machines: a front end.
func (s *Service) Sockets() *vhostuser.Sockets { return s.sockets }

// Open opens a device for I/O in this process.
func (s *Service) Open(r ctl.Ref, write bool) (blk.Device, error) {
	d, err := s.find(r)
	if err != nil {
		return nil, err
	}
	return d.Open(write)
}

// FailSuspended ends I/O that waits in suspended devices: in errors, so that who
// waits for it can go. Nothing of it is saved.
func (s *Service) FailSuspended() {
	for _, d := range s.control.List() {
		if st := d.Status(); st.Suspended {
			s.fail(d, max(st.Sectors, 1))
		}
	}
}

func (s *Service) fail(d *dm.Device, sectors uint64) {
	err := d.Load([]dm.Spec{{Len: sectors, Type: "error"}}, dm.Mode{Write: true})
	if err == nil {
		err = d.Resume(context.Background(), true)
	}
	if err != nil {
		s.log.Error("I/O that waits for a suspended device cannot be failed", "device", d.Name(), "reason", err)
	}
}

// EndOperations lets operations on volumes that take long stop where they are. The
// next service of this root goes on with them.
func (s *Service) EndOperations() { s.volumes.Close() }

// Close flushes every device and takes the stacks down, the saved state excepted.
func (s *Service) Close() error {
	s.EndOperations()
	var errs []error
	for _, d := range s.control.List() {
		if st := d.Status(); st.Live && !st.Suspended {
			if err := blk.FlushDevice(s.env, d); err != nil {
				errs = append(errs, fmt.Errorf("flushing %s: %w", st.Name, err))
			}
		}
	}
	return errors.Join(append(errs, s.control.Close())...)
}

// Unflushed are the names of the devices that Close has not closed yet.
func (s *Service) Unflushed() (names []string) {
	for _, d := range s.control.List() {
		names = append(names, d.Name())
	}
	return names
}
