package service

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"udm/ctl"
	"udm/env/hostfs"
	"udm/targets/all"
)

// full is a file system that may have no space left.
type full struct {
	hostfs.Disk
	on bool
}

type fullFile struct{ hostfs.File }

func (fullFile) Write([]byte) (int, error) { return 0, &fs.PathError{Op: "write", Err: syscall.ENOSPC} }

func (f *full) Create(path string) (hostfs.File, error) {
	file, err := f.Disk.Create(path)
	if f.on && err == nil {
		return fullFile{file}, nil
	}
	return file, err
}

func (f *full) Remove(path string) error {
	if f.on {
		return &fs.PathError{Op: "remove", Path: path, Err: syscall.ENOSPC}
	}
	return f.Disk.Remove(path)
}

// known is what there is to know about the devices of a service.
func known(t *testing.T, s *Service) string {
	t.Helper()
	ds, err := s.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithTable}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range ds {
		ds[i].Event = 0
	}
	text, err := json.MarshalIndent(ds, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A command whose outcome finds no space to be saved has not happened, and says so.
func TestNoSpaceNoChange(t *testing.T) {
	x, w := ctl.Ref{Name: "x"}, ctl.Ref{Name: "w"}
	for name, command := range map[string]func(context.Context, *Service) error{
		"create": func(ctx context.Context, s *Service) error {
			_, err := s.Create(ctx, ctl.Create{Name: "y", Table: "0 8 zero"})
			return err
		},
		"create empty": func(ctx context.Context, s *Service) error {
			_, err := s.Create(ctx, ctl.Create{Name: "y"})
			return err
		},
		"load": func(ctx context.Context, s *Service) error {
			_, err := s.Load(ctx, ctl.Load{Ref: x, Table: "0 16 zero"})
			return err
		},
		"suspend": func(ctx context.Context, s *Service) error {
			_, err := s.Suspend(ctx, ctl.Suspend{Ref: x})
			return err
		},
		"resume": func(ctx context.Context, s *Service) error {
			_, err := s.Resume(ctx, ctl.Suspend{Ref: w})
			return err
		},
		"clear": func(ctx context.Context, s *Service) error {
			_, err := s.Clear(ctx, w)
			return err
		},
		"rename": func(ctx context.Context, s *Service) error {
			_, err := s.Rename(ctx, ctl.Rename{Ref: x, NewName: "z"})
			return err
		},
		"set uuid": func(ctx context.Context, s *Service) error {
			_, err := s.Rename(ctx, ctl.Rename{Ref: x, NewUUID: "u"})
			return err
		},
		"remove": func(ctx context.Context, s *Service) error { return s.Remove(ctx, ctl.Remove{Ref: x}) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, root, disk := context.Background(), t.TempDir(), &full{}
			s, err := New(Config{Root: root, Types: all.Types(), FS: disk})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Restore(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Create(ctx, ctl.Create{Name: "x", Table: "0 8 zero"}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Create(ctx, ctl.Create{Name: "w", Table: "0 8 zero"}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Suspend(ctx, ctl.Suspend{Ref: w}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(ctx, ctl.Load{Ref: w, Table: "0 16 zero"}); err != nil {
				t.Fatal(err)
			}
			before := known(t, s)
			disk.on = true
			if err := command(ctx, s); !errors.Is(err, syscall.ENOSPC) || ctl.NewError(err).Errno != "ENOSPC" {
				t.Errorf("the command ends with %v", err)
			}
			if after := known(t, s); after != before {
				t.Errorf("there is\n%s\ninstead of\n%s", after, before)
			}
			disk.on = false
			ended(t, s)
			again := started(t, root)
			if err := again.Restore(ctx); err != nil {
				t.Error(err)
			}
			if after := known(t, again); after != before {
				t.Errorf("after a restart there is\n%s\ninstead of\n%s", after, before)
			}
			ended(t, again)
		})
	}
}
