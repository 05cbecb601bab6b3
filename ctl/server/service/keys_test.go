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
	"udm/dm"
	"udm/targets/all"
	"udm/targets/crypt"
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

// A table that names a key is saved without it. After a restart its device waits for the key,
// and works again once that is set; nothing else has to be done. Another key is not taken for it.
func TestKeyStore(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	disk := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(disk, make([]byte, 1<<20), 0o600))
	start := func() *Service {
		keys := &crypt.Ring{}
		s, err := New(Config{Root: root, Types: all.TypesWithKeys(keys), Keys: keys})
		must(t, err)
		must(t, s.Restore(ctx))
		return s
	}
	set := func(s *Service, name string) error {
		return s.SetKey(ctx, ctl.SetKey{KeyName: ctl.KeyName{Type: "logon", Description: name}, Key: []byte(key)})
	}
	s := start()
	create := ctl.Create{Name: "secret", Table: "0 2048 crypt aes-xts-plain64 :64:logon:one 0 " + disk + " 0"}
	if _, err := s.Create(ctx, create); dm.ErrnoOf(err) != dm.ENOKEY {
		t.Errorf("without its key: %v", err)
	}
	must(t, set(s, "one"))
	_, err := s.Create(ctx, create)
	must(t, err)
	if got := tableOf(t, s, true); !strings.Contains(got, " :64:logon:one ") {
		t.Errorf("it shows %s", got)
	}
	list, err := s.Keys(ctx)
	if err != nil || len(list) != 1 || list[0].Description != "one" || list[0].Size != 64 {
		t.Errorf("%v, %v", list, err)
	}
	for _, k := range []ctl.KeyName{{Type: "asymmetric", Description: "x"}, {Type: "logon", Description: "two words"}, {Type: "logon"}} {
		if err := s.SetKey(ctx, ctl.SetKey{KeyName: k, Key: []byte(key)}); dm.ErrnoOf(err) != syscall.EINVAL {
			t.Errorf("%v was set: %v", k, err)
		}
	}
	must(t, s.RemoveKey(ctx, list[0].KeyName))
	if err := s.RemoveKey(ctx, list[0].KeyName); dm.ErrnoOf(err) != dm.ENOKEY {
		t.Errorf("removed twice: %v", err)
	}
	must(t, s.Close())
	noFileHas(t, root, key)

	s = start()
	defer s.Close()
	must(t, set(s, "two"))
	if got := tableOf(t, s, true); got != "" {
		t.Errorf("without its key: %s", got)
	}
	must(t, set(s, "one"))
	if got := tableOf(t, s, true); !strings.Contains(got, " :64:logon:one ") {
		t.Errorf("with its key: %q", got)
	}
}
