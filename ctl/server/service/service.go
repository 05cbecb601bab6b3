package server

import (
	"log/slog"
	"path/filepath"
	"sync"

	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
)

// Server holds the devices of one root and answers commands about them. It is
// safe for concurrent use.
type Server struct {
	env     env.Env
	control *dm.Control
	opener  Opener
	store   store
	log     *slog.Logger
	program string
	files   *files

	// saving are held while the file of a device is replaced; a device has the
	// one that its minor number comes to.
	saving [64]*env.Mutex

	// naming is held while a device is renamed and that is saved.
	naming *env.Mutex

	mu      sync.Mutex
	keepers map[uint32]*keeper  // guarded by mu; by minor
	written map[uint32]*written // guarded by mu; by minor: what there are files of
	claimed map[string]uint32   // guarded by mu; minors by the names in their files
}

// Machine is what a server runs on.
type Machine struct {
	Env    env.Env
	Opener Opener
	FS     hostfs.FS
}

// Opener opens disks, and knows what to call one that is open so that it is
// found again after a restart.
type Opener interface {
	dm.Opener
	Name(dm.Number) string // "" if there is none
}

// New returns a server on this machine: see [Machine.NewServer].
func New(root, program string, log *slog.Logger, types []*dm.Type) (*Server, error) {
	return Machine{env.Real(), leaf.New(env.Real()), hostfs.Disk{}}.NewServer(root, program, log, types)
}

// NewServer returns a server that keeps its state below root, and has no devices
// yet: see Restore. program is the version to report.
func (m Machine) NewServer(root, program string, log *slog.Logger, types []*dm.Type) (*Server, error) {
	s := &Server{
		env: m.Env, opener: m.Opener, store: store{m.FS, filepath.Join(root, "devices")},
		log: log, program: program, keepers: make(map[uint32]*keeper),
		written: make(map[uint32]*written), claimed: make(map[string]uint32),
		naming: env.NewMutex(m.Env),
	}
	for i := range s.saving {
		s.saving[i] = env.NewMutex(m.Env)
	}
	s.control = dm.NewControl(m.Env, m.Opener, types...)
	s.control.SetLog(log)
	s.files = newFiles(s, root)
	return s, hostfs.MakeDir(m.FS, s.store.dir)
}

// Control is the set of devices, for who embeds the server.
func (s *Server) Control() *dm.Control { return s.control }
