package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/filedev"
	"udm/ctl"
	"udm/ctl/server/protocol"
	"udm/ctl/server/service"
	"udm/env"
	"udm/targets/all"
	"udm/targets/linear"
)

// fault fails the Nth command that would change something.
type fault struct {
	next http.Handler

	mu   sync.Mutex
	left int // guarded by mu; 0: none fails
	hit  bool
}

func (f *fault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	changes := !strings.HasSuffix(r.URL.Path, "/list") && !strings.HasSuffix(r.URL.Path, "/device")
	fail := false
	if changes && f.left > 0 {
		f.left--
		fail = f.left == 0
		f.hit = f.hit || fail
	}
	f.mu.Unlock()
	if fail {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(&ctl.Error{Errno: "ENOMEM", Reason: "planted"})
		return
	}
	f.next.ServeHTTP(w, r)
}

func (f *fault) arm(n int) { f.mu.Lock(); f.left, f.hit = n, false; f.mu.Unlock() }

func (f *fault) wasHit() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.hit }

// newFaulty is a maker whose commands can be made to fail.
func newFaulty(t *testing.T) (*maker, *fault, *service.Service) {
	t.Helper()
	root, err := os.MkdirTemp("", "udm")
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.New(service.Config{Root: root, Program: "test", Types: all.Types()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	f := &fault{next: protocol.Handler(s, slog.New(slog.DiscardHandler))}
	l, err := net.Listen("unix", filepath.Join(root, ctl.Socket))
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: f}
	done := make(chan error, 1)
	go func() { done <- web.Serve(l) }()
	m := &maker{context.Background(), ctl.NewClient(root), root}
	t.Cleanup(func() {
		m.Close()
		if err := errors.Join(web.Close(), s.Close(), os.RemoveAll(root)); err != nil {
			t.Error(err)
		}
		<-done
	})
	return m, f, s
}

// stateOfAll is what a command that failed must have left alone.
func stateOfAll(t *testing.T, m *maker) string {
	t.Helper()
	ds, err := m.client.List(m.ctx, ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithDeps}})
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
	files, err := filepath.Glob(filepath.Join(m.root, "[sp]*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + strings.Join(files, "\n")
}

func newImage(t *testing.T, m *maker) string {
	t.Helper()
	path := filepath.Join(m.root, "image")
	if err := filedev.Create(path, 2048); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each command of people is made to fail in each of its steps: nothing that it
// did before stays.
func TestFailureLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		before func(m *maker, image string) error
		run    func(m *maker, image string) error
	}{
		"clone":          {nil, func(m *maker, image string) error { _, err := m.clone(image, 2048, "c", "", 0); return err }},
		"first snapshot": {plainDisk, func(m *maker, _ string) error { _, err := m.snapshot("disk", "s", "", 0); return err }},
		"second snapshot": {
			func(m *maker, image string) error {
				if err := plainDisk(m, image); err != nil {
					return err
				}
				_, err := m.snapshot("disk", "s1", "", 0)
				return err
			},
			func(m *maker, _ string) error { _, err := m.snapshot("disk", "s2", "", 0); return err },
		},
		"pool": {nil, func(m *maker, _ string) error {
			_, err := m.createPool("p", poolShape{size: 4096, block: 128})
			return err
		}},
		"volume": {newPool, func(m *maker, _ string) error {
			_, err := m.newVolume("p", "v", 2048, "", "create_thin %d")
			return err
		}},
		"thin clone": {newPool, func(m *maker, image string) error { _, err := m.thinClone(image, 2048, "p", "v"); return err }},
		"thin snapshot": {
			func(m *maker, image string) error {
				if err := newPool(m, image); err != nil {
					return err
				}
				_, err := m.newVolume("p", "v", 2048, "", "create_thin %d")
				return err
			},
			func(m *maker, _ string) error { _, err := m.snapshot("v", "s", "", 0); return err },
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, f, _ := newFaulty(t)
			image := newImage(t, m)
			if c.before != nil {
				if err := c.before(m, image); err != nil {
					t.Fatal(err)
				}
			}
			before := stateOfAll(t, m)
			for n := 1; ; n++ {
				f.arm(n)
				err := c.run(m, image)
				hit := f.wasHit()
				f.arm(0)
				if !hit {
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("%d steps", n-1)
					return
				}
				if err == nil {
					t.Fatalf("step %d fails and the command does not", n)
				}
				if after := stateOfAll(t, m); after != before {
					t.Fatalf("failed in step %d with %v, and leaves\n%s\nof\n%s", n, err, after, before)
				}
			}
		})
	}
}

func plainDisk(m *maker, image string) error {
	_, err := m.client.Create(m.ctx, ctl.Create{Name: "disk", Table: "0 2048 linear " + image + " 0"})
	return err
}

func newPool(m *maker, _ string) error {
	_, err := m.createPool("p", poolShape{size: 4096, block: 128})
	return err
}

// A merge that fails in any of its steps can be taken up again and comes to the
// right content.
func TestMergeIsTakenUpAgain(t *testing.T) {
	for n := 1; ; n++ {
		m, f, svc := newFaulty(t)
		image := newImage(t, m)
		if err := plainDisk(m, image); err != nil {
			t.Fatal(err)
		}
		if _, err := m.snapshot("disk", "s", "", 0); err != nil {
			t.Fatal(err)
		}
		write(t, svc, "s", 1)
		write(t, svc, "disk", 2)
		f.arm(n)
		err := merge(m, "s", "disk")
		hit := f.wasHit()
		f.arm(0)
		if hit && err == nil {
			t.Fatalf("step %d fails and the command does not", n)
		}
		if hit {
			if err := merge(m, "s", "disk"); err != nil {
				t.Fatalf("after a failure in step %d: %v", n, err)
			}
		}
		checkMerged(t, m, image)
		if !hit {
			t.Logf("%d steps", n-1)
			return
		}
	}
}

// merge does what the command does: by the name of the snapshot as long as that
// is there, then by that of its origin.
func merge(m *maker, names ...string) error {
	for _, name := range names {
		d, err := m.device(name)
		if err != nil {
			continue
		}
		if _, ok := only(d).(*linear.Line); ok {
			return nil
		}
		name, err := m.startMerge(d)
		if err == nil {
			err = m.watchMerge(name, discard{})
		}
		if err == nil {
			err = m.endMerge(name)
		}
		return err
	}
	return errors.New("nothing to merge")
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func checkMerged(t *testing.T, m *maker, image string) {
	t.Helper()
	ds, err := m.client.List(m.ctx, ctl.Query{With: []ctl.With{ctl.WithTable}})
	if len(ds) == 2 && ds[1].Name == "disk-real" && ds[1].Opens == 0 {
		ds = ds[:1] // what could not be removed in the end does no harm
	}
	if err != nil || len(ds) != 1 || ds[0].Name != "disk" || ds[0].Suspended || ds[0].Table[0].Target != "linear" {
		t.Fatalf("%+v, %v", ds, err)
	}
	got, err := os.ReadFile(image)
	if err != nil || got[0] != 1 {
		t.Fatalf("the image begins with %d, %v", got[0], err)
	}
}

// write fills the first sectors of a device.
func write(t *testing.T, s *service.Service, name string, value byte) {
	t.Helper()
	p := bytes.Repeat([]byte{value}, 4096)
	err := withMapped(s, name, true, func(d blk.Device) error { return blk.WriteSectors(env.Real(), d, p, 0, blk.FUA) })
	if err != nil {
		t.Fatal(err)
	}
}
