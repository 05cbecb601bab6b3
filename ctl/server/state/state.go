package state

import (
	"log/slog"
	"path/filepath"
	"sync"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
)

// State keeps the devices of a set. It is safe for concurrent use.
type State struct {
	control *dm.Control
	opener  Opener
	store   store
	log     *slog.Logger

	// saving are held while the file of a device is replaced; a device has the
	// one that its minor number comes to.
	saving [64]*env.Mutex

	disksLock *env.Mutex // held while disks are registered, and that is saved
	disks     []Disk     // guarded by disksLock

	mu      sync.Mutex
	total   int                 // guarded by mu; devices to restore
	entries map[uint32]*entry   // guarded by mu; by minor
	written map[uint32]*written // guarded by mu; by minor: what there are files of
	claimed map[string]uint32   // guarded by mu; minors by the names in their files
}

// Opener opens disks, and knows what to call one that is open so that it is
// found again after a restart.
type Opener interface {
	dm.Opener
	Name(dm.Number) string // "" if there is none
	// Report tells how an open disk is, if it has something to tell.
	Report(dm.Number) (blk.Report, bool)
}

// Config is what a State is made from; all of it is needed.
type Config struct {
	Root    string // the directory of the state; made if missing
	FS      hostfs.FS
	Env     env.Env
	Control *dm.Control // the devices
	Opener  Opener      // of Control
	Log     *slog.Logger
}

// New returns a State that has read nothing yet: see [State.Restore].
func New(c Config) (*State, error) {
	s := &State{
		control: c.Control, opener: c.Opener, store: store{c.FS, filepath.Join(c.Root, "devices")}, log: c.Log,
		entries: make(map[uint32]*entry), written: make(map[uint32]*written), claimed: make(map[string]uint32),
	}
	s.disksLock = env.NewMutex(c.Env)
	for i := range s.saving {
		s.saving[i] = env.NewMutex(c.Env)
	}
	return s, hostfs.MakeDir(c.FS, s.store.dir)
}
