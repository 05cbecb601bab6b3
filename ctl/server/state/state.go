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

// State saves and restores the devices of a set. It is safe for concurrent use.
type State struct {
	control *dm.Control
	opener  Opener
	store   store
	log     *slog.Logger

	// saving locks are held while the file of a device is replaced; the minor number
	// selects the lock.
	saving [64]*env.Mutex

	disksLock *env.Mutex // held while disks are registered and saved
	disks     []Disk     // guarded by disksLock

	format savedFormat // as saved
	come   env.Wait    // woken when away or coming shrinks

	mu      sync.Mutex
	away    map[uint32]bool     // guarded by mu; by minor; devices of another process: see Expect
	coming  map[uint32]bool     // guarded by mu; by minor; those whose tables are being loaded
	marked  map[uint32]bool     // guarded by mu; by minor; saved with a deferred removal
	groups  map[string]Limit    // guarded by mu; limits of groups
	total   int                 // guarded by mu; devices to restore
	entries map[uint32]*entry   // guarded by mu; by minor
	written map[uint32]*written // guarded by mu; the existing files, by minor
	claimed map[string]uint32   // guarded by mu; minors by the names in their files
}

// Opener opens disks, and knows the name under which an open disk is found again
// after a restart.
type Opener interface {
	dm.Opener
	Name(dm.Number) string // "" if there is none
	// Report returns the condition of an open disk, if it has one to report.
	Report(dm.Number) (blk.Report, bool)
}

// Config configures a State; all fields are required.
type Config struct {
	Root    string // directory of the state; created if missing
	FS      hostfs.FS
	Env     env.Env
	Control *dm.Control // the devices
	Opener  Opener      // the opener of Control
	Log     *slog.Logger
}

// New returns a State that has not read anything yet: see [State.Restore].
func New(c Config) (*State, error) {
	s := &State{
		control: c.Control, opener: c.Opener, store: store{c.FS, filepath.Join(c.Root, "devices")}, log: c.Log,
		entries: make(map[uint32]*entry), written: make(map[uint32]*written), claimed: make(map[string]uint32),
		come: c.Env.NewWait(), away: make(map[uint32]bool), coming: make(map[uint32]bool), marked: make(map[uint32]bool),
	}
	s.disksLock = env.NewMutex(c.Env)
	for i := range s.saving {
		s.saving[i] = env.NewMutex(c.Env)
	}
	if err := hostfs.MakeDir(c.FS, s.store.dir); err != nil {
		return nil, err
	}
	return s, s.checkFormat()
}
