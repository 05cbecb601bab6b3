package service

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"udm/blk"
	"udm/ctl"
	"udm/targets/all"
	"udm/volume"
)

// once are files of which one can be opened for reading once only.
type once struct {
	volume.HostFiles
	path   string
	opened atomic.Bool
}

func (o *once) Open(path string, write bool) (blk.Device, error) {
	if path == o.path && o.opened.Swap(true) {
		return nil, syscall.EIO
	}
	return o.HostFiles.Open(path, write)
}

// While an operation is about a device, commands that would take it away are refused
// in words, and cancelling the operation lets them through.
func TestCommandsBesideAnOperation(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	image := filepath.Join(root, "image")
	files := &once{path: filepath.Join(root, "source")}
	for _, path := range []string{image, files.path} {
		must(t, files.Make([]volume.File{{Path: path, Size: 1 << 20}}))
	}
	s, err := New(Config{Root: root, Types: all.Types(), Files: files})
	must(t, err)
	must(t, s.Restore(ctx))
	must(t, s.Clone(ctx, volume.CloneSpec{Base: image, Names: []string{"a", "b"}}))
	if err := s.CopyIn(ctx, ctl.ObjectFile{Name: "a", File: files.path}); !errors.Is(err, syscall.EIO) {
		t.Errorf("the copy ends with %v", err)
	}
	a := ctl.Ref{Name: "a"}
	commands := map[string]func() error{
		"load":   func() error { _, err := s.Load(ctx, ctl.Load{Ref: a, Table: "0 8 zero"}); return err },
		"rename": func() error { _, err := s.Rename(ctx, ctl.Rename{Ref: a, NewName: "c"}); return err },
		"remove": func() error { return s.Remove(ctx, ctl.Remove{Ref: a}) },
		"all":    func() error { return s.RemoveAll(ctx, ctl.Remove{}) },
	}
	for name, do := range commands {
		if err := do(); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "copy") {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, s.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: "b"}}))
	ops, err := s.Operations(ctx)
	must(t, err)
	must(t, s.CancelOperation(ctx, ctl.Operation{ID: ops[0].ID}))
	must(t, commands["remove"]())
	ended(t, s)
}
