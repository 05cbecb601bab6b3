package service

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"udm/ctl"
	"udm/volume"
)

const key = "0123456789abcdef0123456789abcdeffedcba9876543210fedcba9876543210"

// noFileHas expects that no file below root has a text in it.
func noFileHas(t *testing.T, root, text string) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		p, err := os.ReadFile(path)
		if strings.Contains(string(p), text) {
			t.Errorf("%s has the key in it", path)
		}
		return err
	}))
}

func tableOf(t *testing.T, s *Service, keys bool) string {
	t.Helper()
	d, err := s.Device(context.Background(), ctl.Query{Ref: ctl.Ref{Name: "secret"}, With: []ctl.With{ctl.WithTable}, Keys: keys})
	must(t, err)
	if len(d.Table) == 0 {
		return ""
	}
	return d.Table[0].Params
}

// Keys are in no file and shown only to those who ask. A device waits for its key after
// a restart, and works again once it has it.
func TestKeysAreNotKept(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	disk := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(disk, make([]byte, 1<<20), 0o600))
	table := "0 2048 crypt aes-xts-plain64 " + key + " 0 " + disk + " 0"
	s := started(t, root)
	must(t, s.Restore(ctx))
	_, err := s.Create(ctx, ctl.Create{Name: "secret", Table: table})
	must(t, err)
	noFileHas(t, root, key)
	if got := tableOf(t, s, false); strings.Contains(got, key) || !strings.Contains(got, strings.Repeat("0", len(key))) {
		t.Errorf("unasked, it shows %s", got)
	}
	if got := tableOf(t, s, true); !strings.Contains(got, key) {
		t.Errorf("asked, it shows %s", got)
	}
	err = s.Snapshot(ctx, volume.SnapshotSpec{Of: "secret", Names: []string{"night"}})
	if !errors.Is(err, syscall.EOPNOTSUPP) || strings.Contains(err.Error(), key) {
		t.Errorf("a snapshot, whose journal would have the key in it: %v", err)
	}
	noFileHas(t, root, key)
	ended(t, s)

	s = started(t, root)
	must(t, s.Restore(ctx))
	d, err := s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: "secret"}})
	must(t, err)
	if d.Live || !strings.Contains(d.Waiting, "key") {
		t.Errorf("after a restart: %+v", d)
	}
	_, err = s.Load(ctx, ctl.Load{Ref: ctl.Ref{Name: "secret"}, Table: table})
	must(t, err)
	_, err = s.Resume(ctx, ctl.Suspend{Ref: ctl.Ref{Name: "secret"}})
	must(t, err)
	if got := tableOf(t, s, true); !strings.Contains(got, key) {
		t.Errorf("with its key again, it shows %s", got)
	}
	noFileHas(t, root, key)
	ended(t, s)
}
