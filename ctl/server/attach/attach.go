// Package attach shows devices to programs that know nothing of NBD: as files in
// mounted directories, and as block devices of the kernel: loop devices on top of
// such files, or those of its nbd driver.
//
// What is mounted and attached is saved in ROOT/files.json and comes back when the
// daemon starts again, at the same places where they are free. The directory that
// [Kernel.Files] is given is not saved: the daemon's command line says it again.
//
//	an attachment:  attached ──────────────────────────────► detached, forgotten
//	                   │  ▲                                     ▲
//	   the daemon ends │  │ its device is live and not          │ its device has gone,
//	                   ▼  │ suspended                           │ or attaching fails
//	                saved: told by nobody ──────────────────────┘
//
// What is attached by nbd has a process that outlives the daemon to disconnect: see
// link. All work on a block device is done by a process of its own: see [Helper].
//
// Lock order: Kernel.op (an env.Mutex, held while devices are mounted or attached,
// which may wait), then what device-mapper commands take. The requests of the files
// take none of it.
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

	"udm/ctl/server/exports"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
	"udm/export/nbd"
)

// Kernel is what this machine's kernel shows of a set of devices. It is safe for
// concurrent use.
type Kernel struct {
	control *dm.Control
	exports exports.Set
	fs      hostfs.FS
	log     *slog.Logger
	helper  []string
	root    string     // without symbolic links
	op      *env.Mutex // held while one command runs
	read    bool       // guarded by op; files.json has been read
	over    bool       // guarded by op; it is ending

	mounts  map[string]*mounted   // guarded by op; by directory
	own     mounted               // guarded by op; ROOT/files, for what is attached
	devices map[uint32]attachment // guarded by op; by minor

	nbd   *nbd.Server      // of what is attached by nbd
	links map[uint32]*link // guarded by op; by minor
	cut   atomic.Bool      // nbd is cutting connections off
}

// What clients of a Kernel count as.
const (
	openFiles   dm.Holder = "files"
	attachments dm.Holder = "attachments"
)

// Config is what a Kernel is made from; all of it is needed but Helper.
type Config struct {
	Root    string // where files.json is
	FS      hostfs.FS
	Env     env.Env
	Exports exports.Set
	Log     *slog.Logger
	// Helper is a command that calls [Helper]; without one nothing can be
	// attached as a block device.
	Helper []string
}

// New returns a Kernel that shows nothing yet: see [Kernel.Files] and
// [Kernel.Devices].
func New(c Config) (*Kernel, error) {
	root := c.Root
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real // as the kernel tells it
	}
	server, err := nbd.New(nbd.Config{Exports: c.Exports.For(attachments).ByNumber(), Grow: true, Log: c.Log})
	return &Kernel{
		control: c.Exports.Control, exports: c.Exports, fs: c.FS, log: c.Log, helper: c.Helper,
		root: root, op: env.NewMutex(c.Env), nbd: server,
		mounts: make(map[string]*mounted), devices: make(map[uint32]attachment), links: make(map[uint32]*link),
	}, err
}

// saved is what files.json holds.
type saved struct {
	Mounts   []string          `json:"mounts,omitempty"`
	Attached map[uint32]string `json:"attached,omitempty"` // paths of block devices by minor
}

func (k *Kernel) path() string { return filepath.Join(k.root, "files.json") }

// save makes files.json say what is mounted and attached.
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

// readSaved notes, once, what is to come back.
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
		k.log.Error("mounts and attached devices cannot be restored", "file", k.path(), "reason", err)
		return
	}
	for _, dir := range s.Mounts {
		k.mounts[dir] = &mounted{nil, true}
	}
	for minor, path := range s.Attached {
		k.devices[minor] = attachment{path: path}
	}
}
