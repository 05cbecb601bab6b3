// Package attach makes devices available to programs that do not use NBD: as files in
// mounted directories, and as block devices of the kernel. The latter are devices of
// the kernel's ublk driver, loop devices on such files, or devices of its nbd driver.
//
// Mounts and attachments are saved in ROOT/files.json and restored when the daemon
// starts again, at the same places if those are free. The directory passed to
// [Kernel.Files] is not saved: it comes from the daemon's command line.
//
//	an attachment:  attached ──────────────────────────────► detached, forgotten
//	                   │  ▲                                     ▲
//	   the daemon ends │  │ its device is live and not          │ its device is removed,
//	                   ▼  │ suspended                           │ or attaching fails
//	                saved, not listed ──────────────────────────┘
//
// What is in use when the daemon ends in order waits for the next one if the root has a
// keeper: see [Kernel.Kept]. Of a daemon that is killed nothing is kept, because thin
// volumes have lost their last writes then, which a mounted file system must learn.
//
// A device attached by ublk or nbd that is in use stays when the daemon ends or is killed. Its
// users wait, and the next daemon takes it over: their completed writes outlive the process
// ([export.Lasting]). Devices in the memory of the daemon end with it; see link. All work on a
// block device is done by a separate process: see [Helper].
//
// Lock order: Kernel.op (an env.Mutex, held while devices are mounted or attached,
// which may wait), then the locks of device-mapper commands. Requests for the files
// take none of these.
package attach

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync/atomic"

	"udm/ctl"
	"udm/ctl/server/exports"
	"udm/ctl/server/handover"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
	"udm/export"
	"udm/export/nbd"
)

// Kernel makes a set of devices available through this machine's kernel. It is safe
// for concurrent use.
type Kernel struct {
	control *dm.Control
	exports exports.Set
	fs      hostfs.FS
	log     *slog.Logger
	helper  []string
	root    string     // symbolic links resolved
	op      *env.Mutex // held while one command runs
	read    bool       // guarded by op; files.json has been read
	over    bool       // guarded by op; the daemon is stopping

	mounts map[string]*mounted // guarded by op; by directory
	own    mounted             // guarded by op; ROOT/files, for loop devices
	// numbered is the mount at ROOT/by-number, which is not saved.
	numbered mounted               // guarded by op
	devices  map[uint32]attachment // guarded by op; by minor
	left     []uint32              // guarded by op; minors of loop devices of a daemon before: see endLeft

	nbd   *nbd.Server            // serves devices attached by nbd
	links map[uint32]*link       // guarded by op; by minor
	ublk  map[uint32]blockServer // guarded by op; by minor
	// waiting is ublkWaits.
	waiting func(minor uint32) bool
	cut     atomic.Bool // nbd is disconnecting clients

	starts []func() // guarded by op; begin to serve what was taken over
	taken  bool     // guarded by op; a Retry follows when everything is

	kept    *handover.Bundle // guarded by op; what was in use when the daemon stopped: see Kept
	lenient bool             // guarded by op; what is taken may lack devices: see TakeKept
}

// Names under which a Kernel opens devices, as shown in their holders.
const (
	openFiles   dm.Holder = "files"
	attachments dm.Holder = "attachments"
)

// Config configures a Kernel; all fields but Helper are required.
type Config struct {
	Root    string // directory of files.json
	FS      hostfs.FS
	Env     env.Env
	Exports exports.Set
	Log     *slog.Logger
	// Helper is a command that calls [Helper]; without it nothing can be attached as
	// a block device.
	Helper []string
}

// New returns a Kernel that offers nothing yet: see [Kernel.Files] and
// [Kernel.Devices].
func New(c Config) (*Kernel, error) {
	root := c.Root
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real // as the kernel reports it
	}
	server, err := nbd.New(nbd.Config{Exports: export.Lasting(c.Exports.For(attachments).ByNumber()), Grow: true, Log: c.Log})
	k := &Kernel{
		control: c.Exports.Control, exports: c.Exports, fs: c.FS, log: c.Log, helper: c.Helper,
		root: root, op: env.NewMutex(c.Env), nbd: server,
		mounts: make(map[string]*mounted), devices: make(map[uint32]attachment), links: make(map[uint32]*link),
		ublk: make(map[uint32]blockServer),
	}
	k.waiting = k.ublkWaits
	return k, err
}

// saved is the content of files.json.
type saved struct {
	Mounts   []string          `json:"mounts,omitempty"`
	Attached map[uint32]string `json:"attached,omitempty"` // paths of block devices by minor
}

func (k *Kernel) path() string { return filepath.Join(k.root, "files.json") }

// save writes the mounts and attachments to files.json.
func (k *Kernel) save() error {
	s := saved{Attached: make(map[uint32]string)}
	for minor, a := range k.devices {
		s.Attached[minor] = a.path
	}
	for _, dir := range slices.Sorted(maps.Keys(k.mounts)) {
		if k.mounts[dir].saved {
			s.Mounts = append(s.Mounts, dir)
		}
	}
	return hostfs.Replace(k.fs, k.path(), s)
}

// readSaved reads, once, what is to be restored.
func (k *Kernel) readSaved() {
	if k.read {
		return
	}
	k.read = true
	var s saved
	text, err := k.fs.ReadFile(k.path())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		k.log.Error("cannot restore mounts and attached devices", "file", k.path(), "reason", err)
		return
	}
	for _, dir := range s.Mounts {
		k.mounts[dir] = &mounted{nil, true}
	}
	for minor, path := range s.Attached {
		k.devices[minor] = attachment{path: path}
		if driverOf(path) == ctl.DriverLoop {
			k.left = append(k.left, minor)
		}
	}
}
