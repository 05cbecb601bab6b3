//go:build linux

package fuse

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/export"
)

// start serves devices until the test closes it.
func start(t *testing.T, x export.Exports) *Server {
	t.Helper()
	s, err := Mount(env.Real(), x, t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUnmountIsRefusedWhileBusy(t *testing.T) {
	s := start(t, &moody{dev: memdev.New(sectors)})
	f := open(t, filepath.Join(s.Dir(), "disk"))
	if err := s.Unmount(); !errors.Is(err, syscall.EBUSY) {
		t.Fatalf("got %v", err)
	}
	if _, err := f.WriteAt([]byte{1}, 0); err != nil {
		t.Fatalf("a refused unmount broke the file: %v", err)
	}
	f.Close()
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
}

// Close waits for requests in flight, releases the devices, and unmounts the
// directory.
func TestCloseWhileBusy(t *testing.T) {
	gate := blktest.NewGate(env.Real(), memdev.New(sectors))
	m := &moody{dev: gate}
	s := start(t, m)
	f := open(t, filepath.Join(s.Dir(), "disk"))
	wrote, ended := make(chan error), make(chan error)
	go func() {
		_, err := f.WriteAt(make([]byte, 4096), 0)
		wrote <- err
	}()
	held := gate.WaitHeld(1)
	go func() { ended <- s.Close() }()
	s.root.changed.Until(func() bool { // Close waits for the write
		s.root.mu.Lock()
		defer s.root.mu.Unlock()
		return s.root.over || m.heldNow() == 0
	})
	if m.heldNow() != 1 {
		t.Fatal("the device was let go under a write")
	}
	gate.Release(held[0].Index)
	if err := <-ended; !errors.Is(err, syscall.EBUSY) {
		t.Fatalf("got %v", err)
	}
	if m.heldNow() != 0 {
		t.Fatal("the device is still held")
	}
	if err := <-wrote; err != nil && !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
		t.Fatalf("the write under way: %v", err)
	}
	if _, err := f.WriteAt([]byte{1}, 0); err == nil {
		t.Fatal("a file of an ended server takes writes")
	}
	es, err := os.ReadDir(s.Dir())
	if err != nil || len(es) != 0 {
		t.Fatalf("the directory is not free: %v, %v", es, err)
	}
	gate.Open()
}

func (m *moody) heldNow() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

func TestMountTwiceIsRefused(t *testing.T) {
	x := export.Fixed{{Info: export.Info{Name: "disk"}, Device: export.Check(memdev.New(sectors))}}
	dir := mount(t, x)
	if _, err := Mount(env.Real(), x, dir, Options{}); !errors.Is(err, syscall.EBUSY) {
		t.Fatalf("got %v", err)
	}
	if _, err := Mount(env.Real(), x, filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
}

func TestClosed(t *testing.T) {
	m := &moody{dev: memdev.New(sectors)}
	s := start(t, m)
	f := open(t, filepath.Join(s.Dir(), "disk"))
	f.Close()
	s.Closed("disk")
	if n := m.heldNow(); n != 0 {
		t.Fatalf("held %d times", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The loop driver uses the block size of statfs as its discard granularity.
func TestStatfs(t *testing.T) {
	d := memdev.New(sectors, memdev.Tune(func(l *blk.Limits) { l.DiscardGranularity = 64 << 10 }))
	path := one(t, d)
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Bsize != 64<<10 {
		t.Fatalf("%d, %v", st.Bsize, err)
	}
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil || st.Bsize != 4096 {
		t.Fatalf("%d, %v", st.Bsize, err)
	}
}

// The directory omits exports whose names are not valid file names.
func TestOddNames(t *testing.T) {
	d := memdev.New(sectors)
	x := export.Fixed{}
	for _, n := range []string{"", ".", "..", "a b", "Käse"} {
		x = append(x, export.Export{Info: export.Info{Name: n}, Device: export.Check(d)})
	}
	dir := mount(t, x)
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 2 || es[0].Name() != "Käse" || es[1].Name() != "a b" {
		t.Fatalf("%v, %v", es, err)
	}
	for _, e := range es {
		if _, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Error(err)
		}
	}
}
