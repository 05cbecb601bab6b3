//go:build linux

package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/export"
	"udm/test/need"
)

// mount serves devices and returns the directory.
func mount(t testing.TB, x export.Exports) string {
	t.Helper()
	dir := t.TempDir()
	s, err := Mount(env.Real(), x, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

const sectors = 64 << 20 / blk.SectorSize

func one(t testing.TB, d *memdev.Device) string {
	return filepath.Join(mount(t, export.Fixed{{Info: export.Info{Name: "disk"}, Device: export.Check(d), Extents: d.Extents}}), "disk")
}

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestStat(t *testing.T) {
	d := memdev.New(sectors)
	path := one(t, d)
	st, err := os.Stat(path)
	if err != nil || st.Size() != sectors*512 || st.Mode() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	d.Resize(2 * sectors)
	if st, _ = os.Stat(path); st.Size() != 2*sectors*512 {
		t.Fatalf("a new size is not seen: %d", st.Size())
	}
	if _, err := os.Stat(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	es, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(es) != 1 || es[0].Name() != "disk" {
		t.Fatalf("%v, %v", es, err)
	}
}

func TestAnyOffsetAndLength(t *testing.T) {
	f := open(t, one(t, memdev.New(sectors)))
	want := make([]byte, 1<<20)
	for i, w := range []struct{ off, n int }{{0, 10}, {3, 600}, {511, 2}, {4096, 4096}, {5000, 70000}, {1000, 1 << 19}} {
		p := bytes.Repeat([]byte{byte(i + 1)}, w.n)
		copy(want[w.off:], p)
		if n, err := f.WriteAt(p, int64(w.off)); n != w.n || err != nil {
			t.Fatalf("write %d+%d: %d, %v", w.off, w.n, n, err)
		}
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read: %v, equal %v", err, bytes.Equal(got, want))
	}
}

func TestTheEnd(t *testing.T) {
	f := open(t, one(t, memdev.New(sectors)))
	const size = sectors * 512
	if n, err := syscall.Pwrite(int(f.Fd()), make([]byte, 4096), size-512); n != 512 || err != nil {
		t.Fatalf("write over the end: %d, %v", n, err)
	}
	if n, err := f.WriteAt([]byte{1}, size); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write beyond the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(make([]byte, 4096), size-512); n != 512 || err != io.EOF {
		t.Fatalf("read over the end: %d, %v", n, err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, other := range []int64{0, size - 512, size + 512} {
		if err := f.Truncate(other); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("truncate to %d: %v", other, err)
		}
		if err := os.Truncate(f.Name(), other); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("truncate of the path to %d: %v", other, err)
		}
	}
	if st, _ := f.Stat(); st.Size() != size {
		t.Fatalf("truncate changed the size to %d", st.Size())
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, size, 4096); err != syscall.ENOSPC {
		t.Fatalf("fallocate beyond the end: %v", err)
	}
}

// A shell's > and dd open with O_TRUNC, which changes no device, and rm removes none.
func TestOpenToTruncateAndRemove(t *testing.T) {
	f := open(t, one(t, memdev.New(sectors)))
	if _, err := f.WriteAt([]byte("old"), 0); err != nil {
		t.Fatal(err)
	}
	again, err := os.OpenFile(f.Name(), os.O_RDWR|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	p := make([]byte, 3)
	if _, err := again.ReadAt(p, 0); err != nil || string(p) != "old" {
		t.Errorf("read %q, %v", p, err)
	}
	if st, err := again.Stat(); err != nil || st.Size() != sectors*512 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.Remove(f.Name()); !errors.Is(err, syscall.EPERM) {
		t.Errorf("remove: %v", err)
	}
	if _, err := os.Stat(f.Name()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(f.Name() + "-nosuch"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("remove of nothing: %v", err)
	}
}

func TestPunchAndZero(t *testing.T) {
	for _, c := range []struct {
		name string
		no   func(*blk.Limits)
	}{
		{"native", func(*blk.Limits) {}},
		{"discard only", func(l *blk.Limits) { l.MaxWriteZeroes = 0 }},
		{"neither", func(l *blk.Limits) { l.MaxWriteZeroes, l.MaxDiscard = 0, 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t, one(t, memdev.New(sectors, memdev.Tune(c.no))))
			want := bytes.Repeat([]byte{7}, 1<<20)
			if _, err := f.WriteAt(want, 0); err != nil {
				t.Fatal(err)
			}
			for _, r := range []struct{ mode, off, n uint32 }{
				{punchHole | keepSize, 1000, 3000}, {punchHole | keepSize, 100, 10},
				{zeroRange, 65536, 65536}, {zeroRange | keepSize, 200001, 77777}, {keepSize, 0, 4096},
			} {
				var expect error
				if c.name == "neither" && r.mode&punchHole != 0 {
					expect = syscall.EOPNOTSUPP
				} else if r.mode != keepSize {
					clear(want[r.off : r.off+r.n])
				}
				if err := syscall.Fallocate(int(f.Fd()), r.mode, int64(r.off), int64(r.n)); err != expect {
					t.Fatalf("fallocate %v: %v", r, err)
				}
			}
			got := make([]byte, len(want))
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%v, equal %v", err, bytes.Equal(got, want))
			}
		})
	}
}

func TestHoles(t *testing.T) {
	f := open(t, one(t, memdev.New(sectors)))
	if _, err := f.WriteAt([]byte{1}, 1<<20); err != nil {
		t.Fatal(err)
	}
	if off, err := f.Seek(0, seekData); off != 1<<20 || err != nil {
		t.Fatalf("data at %d, %v", off, err)
	}
	off, err := f.Seek(1<<20, seekHole)
	if off <= 1<<20 || off > 2<<20 || err != nil {
		t.Fatalf("hole at %d, %v", off, err)
	}
	if _, err := f.Seek(off, seekData); !errors.Is(err, syscall.ENXIO) {
		t.Fatalf("data behind the last: %v", err)
	}
}

// flushes counts flushes.
type flushes struct {
	*memdev.Device
	n atomic.Int32
}

func (f *flushes) Submit(b *blk.Bio) {
	if b.Op == blk.Flush {
		f.n.Add(1)
	}
	f.Device.Submit(b)
}

func TestFsyncFlushes(t *testing.T) {
	d := &flushes{Device: memdev.New(sectors, memdev.Volatile)}
	f := open(t, filepath.Join(mount(t, export.Fixed{{Info: export.Info{Name: "disk"}, Device: export.Check(d)}}), "disk"))
	if _, err := f.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if d.Dirty() == 0 || d.n.Load() != 0 {
		t.Fatal("a write flushed by itself")
	}
	if err := f.Sync(); err != nil || d.n.Load() != 1 || d.Dirty() != 0 {
		t.Fatalf("%v, %d flushes, %d dirty", err, d.n.Load(), d.Dirty())
	}
	s, err := os.OpenFile(f.Name(), os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.WriteAt([]byte{2}, 0); err != nil || d.Dirty() != 0 {
		t.Fatalf("%v, O_SYNC left %d sectors dirty", err, d.Dirty())
	}
}

func TestReadOnly(t *testing.T) {
	path := filepath.Join(mount(t, export.Fixed{{Info: export.Info{Name: "ro", ReadOnly: true}, Device: export.Check(memdev.New(sectors))}}), "ro")
	if st, _ := os.Stat(path); st.Mode() != 0o400 {
		t.Fatalf("mode %v", st.Mode())
	}
	if _, err := os.OpenFile(path, os.O_RDWR, 0); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
}

// moody is a set of one export that can refuse to open and counts its clients.
type moody struct {
	dev  blk.Device
	mu   sync.Mutex
	gone bool
	held int
}

func (m *moody) List() []export.Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return nil
	}
	return []export.Info{{Name: "disk", Size: m.dev.Limits().Size}}
}

func (m *moody) Find(string) (export.Info, bool) {
	l := m.List()
	if len(l) == 0 {
		return export.Info{}, false
	}
	return l[0], true
}

func (m *moody) Open(string) (*export.Export, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return nil, os.ErrNotExist
	}
	m.held++
	return &export.Export{Device: export.Check(m.dev), Release: func() { m.mu.Lock(); m.held--; m.mu.Unlock() }}, nil
}

func TestDeviceGoesAway(t *testing.T) {
	gate := blktest.NewGate(env.Real(), memdev.New(sectors))
	m := &moody{dev: gate}
	path := filepath.Join(mount(t, m), "disk")
	f := open(t, path)
	done := make(chan error)
	go func() {
		_, err := f.WriteAt(make([]byte, 4096), 0)
		done <- err
	}()
	held := gate.WaitHeld(1)
	m.mu.Lock()
	m.gone = true
	m.mu.Unlock()
	gate.Fail(held[0].Index, blk.Offline)
	if err := <-done; !errors.Is(err, syscall.ENXIO) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Open(path); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENXIO) {
		t.Fatalf("got %v", err)
	}
	f.Close()
	gate.Open()
}

func TestParallel(t *testing.T) {
	path := one(t, memdev.New(sectors))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for i := range 50 {
				at := uint64(w*1000 + i*16)
				if _, err := f.WriteAt(blktest.Pattern(at, 16, uint64(w)), int64(at*512)); err != nil {
					t.Error(err)
				}
				p := make([]byte, 16*512)
				if _, err := f.ReadAt(p, int64(at*512)); err != nil || blktest.Check(p, at, uint64(w)) != nil {
					t.Errorf("%v, %v", err, blktest.Check(p, at, uint64(w)))
				}
			}
		})
	}
	wg.Wait()
}

// later is a device that lets others run before it does anything.
type later struct{ *memdev.Device }

func (d later) Submit(b *blk.Bio) {
	go func() {
		for range 20 {
			runtime.Gosched()
		}
		d.Device.Submit(b)
	}()
}

// Programs that have opened the file separately, and write to parts of the same sectors,
// keep each other's bytes.
func TestPartsOfSectors(t *testing.T) {
	d := memdev.New(sectors)
	path := filepath.Join(mount(t, export.Fixed{{Info: export.Info{Name: "disk"}, Device: export.Check(later{d})}}), "disk")
	const lanes, writes = 4, 300
	var all sync.WaitGroup
	for lane := range lanes {
		f := open(t, path)
		all.Go(func() {
			for i := range writes {
				at := int64(i%3*512 + lane*128)
				p, got := bytes.Repeat([]byte{byte(i)}, 128), make([]byte, 128)
				if _, err := f.WriteAt(p, at); err != nil {
					t.Error(err)
					return
				}
				if _, err := f.ReadAt(got, at); err != nil || !bytes.Equal(got, p) {
					t.Errorf("lane %d has lost write %d: %d, %v", lane, i, got[0], err)
					return
				}
			}
		})
	}
	all.Wait()
}

// A shared map of the file sees writes made through the device. The map is in
// another process: a page fault in this one would deadlock.
func TestMmap(t *testing.T) {
	if path := os.Getenv("UDM_FUSE_TEST_MAP"); path != "" {
		mapped(t, path)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestMmap$", "-test.v")
	cmd.Env = append(os.Environ(), "UDM_FUSE_TEST_MAP="+one(t, memdev.New(sectors)))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func mapped(t *testing.T, path string) {
	f := open(t, path)
	p, err := syscall.Mmap(int(f.Fd()), 0, 1<<20, syscall.PROT_READ, syscall.MAP_SHARED)
	if errors.Is(err, syscall.ENODEV) {
		t.Log("this kernel has no shared maps of direct I/O files (Linux 6.6 has)")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(p)
	for i := range 10 {
		if p[i*5000] != 0 {
			t.Fatalf("byte %d is %d before it is written", i*5000, p[i*5000])
		}
		if _, err := f.WriteAt([]byte{byte(i + 1)}, int64(i*5000)); err != nil {
			t.Fatal(err)
		}
		if p[i*5000] != byte(i+1) {
			t.Fatalf("byte %d is %d after it is written", i*5000, p[i*5000])
		}
	}
}

// Ordinary programs on the file.
func TestPrograms(t *testing.T) {
	need.Tools(t, "mkfs.ext4", "debugfs", "e2fsck", "dd", "qemu-img")
	path := one(t, memdev.New(sectors))
	for _, c := range [][]string{
		{"mkfs.ext4", "-q", "-F", path},
		{"debugfs", "-w", "-R", "mkdir /hello", path},
		{"e2fsck", "-fn", path},
		{"dd", "if=/dev/urandom", "of=" + filepath.Join(t.TempDir(), "blob"), "bs=1M", "count=4"},
		{"qemu-img", "compare", "-f", "raw", "-F", "raw", path, path},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
}

// The next server removes the mount of a dead one.
func TestStaleMount(t *testing.T) {
	dir := os.Getenv("UDM_FUSE_TEST_DIR")
	x := export.Fixed{{Info: export.Info{Name: "disk"}, Device: export.Check(memdev.New(sectors))}}
	if dir != "" { // the process to be killed
		if _, err := Mount(env.Real(), x, dir, Options{}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("mounted")
		select {}
	}
	dir = t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=TestStaleMount")
	cmd.Env = append(os.Environ(), "UDM_FUSE_TEST_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 7)
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "mounted" {
		t.Fatalf("%q, %v", line, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	s, err := Mount(env.Real(), x, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "disk")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
