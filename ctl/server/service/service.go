// Package service is the daemon without its sockets: the devices of one root, and the
// commands on them. It implements [ctl.Service], like the client of a daemon, for
// programs that embed it. What a command changes is saved before the command returns,
// so a program cannot create devices that a restart forgets.
//
//	New ── Restore ──► serving ── Close ──► closed: devices flushed, disks closed
//
// Before it is restored it answers queries, and commands that change something wait.
//
// Lock order: limits.changing (an env.Mutex, held while a limit is changed and saved),
// Service.naming (an env.Mutex, held while a device is renamed and
// saved), the locks of packages attach, state and dm. None is held during a
// device-mapper command that can wait.
package service

import (
	"context"
	"errors"
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
	"udm/targets/crypt"
	"udm/volume"
)

var _ ctl.Service = (*Service)(nil)

// Service holds the devices of one root and runs commands on them. It is safe for
// concurrent use.
type Service struct {
	// FrontEnd is the list of front ends that [Service.FrontEnds] reports. The
	// embedding program starts and stops them.
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
	naming  *env.Mutex // held while a device is renamed and saved
	low     lowDisks
	limits  limits
	keys    *crypt.Ring
	atOnce  int // see Config

	restored atomic.Bool
	wake     env.Wait // woken when restored
}

// Config configures a service. Root and Types are required.
type Config struct {
	Root    string // directory of the saved state; created if missing
	Program string // version to report
	Types   []*dm.Type
	Keys    *crypt.Ring  // the key store of Types; nil: they have none
	Log     *slog.Logger // nil: no log

	Env    env.Env      // nil: [env.Real]
	Opener state.Opener // opens disks; nil: [leaf.Opener]
	FS     hostfs.FS    // file system of Root; nil: [hostfs.Disk]
	Files  volume.Files // files of volumes; nil: [volume.HostFiles]
	// Control is the set of devices; nil creates one. It is for tests: changes made
	// to it directly are not saved.
	Control *dm.Control
	// Helper is a command that calls [attach.Helper]; without it nothing can be
	// attached as a block device.
	Helper []string
	// AtOnce is how many devices that do not depend on each other are handed over together;
	// 0: as many as is best.
	AtOnce int
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
	if c.Keys == nil {
		c.Keys = &crypt.Ring{}
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

// New returns a service without devices: see Restore.
func New(c Config) (*Service, error) {
	c.setDefaults()
	hub := events.NewHub(c.Env)
	saved, err := state.New(state.Config{Root: c.Root, FS: c.FS, Env: c.Env, Control: c.Control, Opener: c.Opener, Log: c.Log})
	if err != nil {
		return nil, err
	}
	s := &Service{env: c.Env, control: c.Control, opener: c.Opener, state: saved, events: hub,
		log: c.Log, program: c.Program, naming: env.NewMutex(c.Env), wake: c.Env.NewWait()}
	s.atOnce, s.keys = c.AtOnce, c.Keys
	s.limits = limits{changing: env.NewMutex(c.Env), own: make(map[*dm.Device]*dm.Throttle), groups: make(map[string]*dm.Throttle)}
	c.Control.SetWatch(s.watch)
	s.volumes = volume.New(volume.Machine{Env: c.Env, Devices: devices{s}, Files: c.Files, FS: c.FS, Root: c.Root, Log: c.Log})
	s.exports = exports.Set{Control: c.Control, Waiting: saved.Waiting, Contexts: s.contexts, Holder: dm.Program, Away: saved.Away, Await: saved.Await}
	s.sockets = vhostuser.New(vhostuser.Config{Root: c.Root, FS: c.FS, Env: c.Env, Exports: s.exports, Log: c.Log})
	s.kernel, err = attach.New(attach.Config{Root: c.Root, FS: c.FS, Env: c.Env, Exports: s.exports, Log: c.Log, Helper: c.Helper})
	return s, err
}

// Restore creates every saved device, loads every table that can be loaded, and
// completes or undoes interrupted operations on volumes; long ones continue in the
// background. Call it once. Commands that change something wait until it returns. The
// error names saved state that cannot be used; everything else works.
func (s *Service) Restore(ctx context.Context) error {
	err := errors.Join(s.state.Restore(ctx), s.volumes.Recover(ctx))
	err = errors.Join(err, s.restoreLimits(), s.sockets.Restore())
	s.settle(ctx)
	return err
}

// settle ends a restore.
func (s *Service) settle(ctx context.Context) {
	s.state.Retry(ctx) // tables that waited for the operations
	s.tellChangedBases()
	s.restored.Store(true)
	s.wake.Wake()
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

// Retry retries what is missing after a restart: tables that wait for their disks,
// block devices that wait for their tables. It warns of disks that may run out of
// space. Call it from time to time.
func (s *Service) Retry(ctx context.Context) {
	s.tellLowDisks()
	s.forgetLimits()
	s.state.Retry(ctx)
	s.kernel.Retry()
	s.sockets.Retry()
}

// Exports returns the devices for servers that offer them to clients.
func (s *Service) Exports() exports.Set { return s.exports }

// Kernel returns the two front ends for this machine's kernel.
func (s *Service) Kernel() *attach.Kernel { return s.kernel }

// Sockets returns the front end for virtual machines.
func (s *Service) Sockets() *vhostuser.Sockets { return s.sockets }

// Open opens a device for I/O in this process.
func (s *Service) Open(r ctl.Ref, write bool) (blk.Device, error) {
	d, err := s.find(r)
	if err != nil {
		return nil, err
	}
	return d.Open(write)
}

// FailSuspended fails the I/O that waits in suspended devices, so that its callers
// can finish. Nothing of this is saved.
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
		s.log.Error("cannot fail the I/O that waits for a suspended device", "device", d.Name(), "reason", err)
	}
}

// EndOperations interrupts long operations on volumes. The next service of this root
// continues them.
func (s *Service) EndOperations() {
	s.volumes.Close()
	s.endLimits()
}

// Close flushes every device and removes the devices; the saved state stays.
func (s *Service) Close() error {
	s.EndOperations()
	return errors.Join(s.Flush(), s.control.Close())
}

// Unflushed returns the names of devices that Close has not closed yet.
func (s *Service) Unflushed() (names []string) {
	for _, d := range s.control.List() {
		names = append(names, d.Name())
	}
	return names
}
