package volume

import (
	"context"
	"errors"
	"io/fs"
)

// mark is the second name of a file until the operation that made it is complete. It
// tells the operation's own files from others.
func mark(path string, op *operation) string { return path + "." + op.ID }

// makeFiles creates sparse files of zeroes.
type makeFiles struct{ Files []File }

func (s *makeFiles) kind() string { return "make files" }

func (s *makeFiles) do(_ context.Context, m *Manager, op *operation) error {
	marked := make([]File, len(s.Files))
	names := make([]Names, len(s.Files))
	for i, f := range s.Files {
		names[i] = Names{mark(f.Path, op), f.Path}
		marked[i] = File{mark(f.Path, op), f.Size, f.Text, f.Whole}
	}
	if err := m.files.Make(marked); err != nil {
		return err
	}
	return m.files.Link(names)
}

func (s *makeFiles) undo(_ context.Context, m *Manager, op *operation) error {
	var own []string
	for _, f := range s.Files {
		if m.files.Same(mark(f.Path, op), f.Path) {
			own = append(own, f.Path)
		}
	}
	return m.files.Remove(own)
}

func (s *makeFiles) settle(m *Manager, op *operation) error {
	marks := make([]string, len(s.Files))
	for i, f := range s.Files {
		marks[i] = mark(f.Path, op)
	}
	return m.files.Remove(marks)
}

// linkFiles gives files a second name.
type linkFiles struct{ Names []Names }

func (s *linkFiles) kind() string { return "link files" }

func (s *linkFiles) do(_ context.Context, m *Manager, _ *operation) error {
	return m.files.Link(s.Names)
}

func (s *linkFiles) undo(_ context.Context, m *Manager, _ *operation) error {
	var own []string
	for _, n := range s.Names {
		// A name that is gone is removed again: if a daemon was killed meanwhile, that
		// may not be durable yet.
		if _, err := m.files.Stat(n.To); errors.Is(err, fs.ErrNotExist) || m.files.Same(n.From, n.To) {
			own = append(own, n.To)
		}
	}
	return m.files.Remove(own)
}

// growFile makes a file longer. Nothing uses the new part yet.
type growFile struct {
	Path     string
	From, To uint64 // bytes
	Whole    bool   `json:",omitempty"` // the new part takes its space
}

func (s *growFile) kind() string { return "grow file" }

func (s *growFile) do(_ context.Context, m *Manager, _ *operation) error {
	return m.files.Resize(s.Path, s.To, s.Whole)
}

func (s *growFile) undo(_ context.Context, m *Manager, _ *operation) error {
	return m.files.Resize(s.Path, s.From, false)
}

// removeFiles removes files that nothing uses any more.
type removeFiles struct {
	final `json:"-"`
	Paths []string
}

func (s *removeFiles) kind() string { return "remove files" }

func (s *removeFiles) do(_ context.Context, m *Manager, _ *operation) error {
	return m.files.Remove(s.Paths)
}
