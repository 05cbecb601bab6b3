package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
)

// Server holds the devices of one root and answers commands about them. It is
// safe for concurrent use.
type Server struct {
	control *dm.Control
	opener  *leaf.Opener
	store   store
	log     *slog.Logger
	program string
	files   *files

	// saving are held while the file of a device is replaced; a device has the
	// one that its minor number comes to.
	saving [64]sync.Mutex

	mu      sync.Mutex
	keepers map[uint32]*keeper // guarded by mu; by minor
}

// New returns a server that keeps its state below root, and has no devices yet:
// see Restore. program is the version to report.
func New(root, program string, log *slog.Logger, types []*dm.Type) (*Server, error) {
	s := &Server{
		opener: leaf.New(env.Real()), store: store{filepath.Join(root, "devices")},
		log: log, program: program, keepers: make(map[uint32]*keeper),
	}
	s.control = dm.NewControl(env.Real(), s.opener, types...)
	s.files = newFiles(s, root)
	return s, os.MkdirAll(s.store.dir, 0o700)
}

// Control is the set of devices, for who embeds the server.
func (s *Server) Control() *dm.Control { return s.control }
