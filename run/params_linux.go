//go:build linux && (amd64 || arm64)

package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"udm/ctl"
)

// params are the parameters of targets as files of /sys/module. Programs write to the
// files themselves, so a value is passed on to the daemon before the next call is
// answered: echo has closed the file before its shell starts the next program.
type params struct {
	pending atomic.Bool // whether written may have files

	mu      sync.Mutex
	names   map[string]string // guarded by mu; by file: the parameter
	written map[string]bool   // guarded by mu; files that were opened for writing
}

// showParams makes the files.
func (s *session) showParams(ctx context.Context) error {
	list, err := s.service.Params(ctx)
	if err != nil {
		return err
	}
	s.params.mu.Lock()
	defer s.params.mu.Unlock()
	for _, p := range list {
		module, name, _ := strings.Cut(p.Name, ".")
		file, err := s.tree.Resolve("/sys/module/"+module+"/parameters/"+name, false)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(file), 0o755)
		}
		if err == nil {
			err = os.WriteFile(file, fmt.Appendln(nil, p.Value), 0o644)
		}
		if err != nil {
			return err
		}
		s.params.names[file] = p.Name
	}
	return nil
}

// openParam is told that a file of the tree is opened. A parameter is empty until it is
// written, and is read as the daemon has it.
func (s *session) openParam(file string, flags uint64) error {
	s.params.mu.Lock()
	defer s.params.mu.Unlock()
	name := s.params.names[file]
	if name == "" {
		return nil
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		s.params.written[file] = true
		s.params.pending.Store(true)
		return os.Truncate(file, 0)
	}
	if s.params.written[file] {
		return nil
	}
	list, err := s.service.Params(context.Background())
	for _, p := range list {
		if p.Name == name {
			err = errors.Join(err, os.WriteFile(file, fmt.Appendln(nil, p.Value), 0o644))
		}
	}
	return err
}

// passOnParams tells the daemon of the parameters that were written.
func (s *session) passOnParams() {
	if !s.params.pending.Load() {
		return
	}
	s.params.mu.Lock()
	defer s.params.mu.Unlock()
	for file := range s.params.written {
		if s.passOn(file, s.params.names[file]) {
			delete(s.params.written, file)
		}
	}
	s.params.pending.Store(len(s.params.written) > 0)
}

// passOn reports whether a file has been written. What is no number changes nothing.
func (s *session) passOn(file, name string) bool {
	text, err := os.ReadFile(file)
	if err != nil || len(text) == 0 {
		return false
	}
	value, err := strconv.ParseUint(strings.TrimSpace(string(text)), 0, 32)
	if err == nil {
		_, err = s.service.SetParam(context.Background(), ctl.SetParam{Name: name, Value: uint32(value)})
	}
	s.failed("the parameter "+name, err)
	return true
}
