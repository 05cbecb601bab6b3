package filedev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

var e = env.Real()

const sectors = 8192

func newFile(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "disk")
	if err := Create(path, sectors); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string, o Options) *Device {
	t.Helper()
	d, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]Options{
		"buffered":        {},
		"direct":          {Direct: true},
		"direct, no ring": {Direct: true, Ring: -1},
		"one worker":      {Workers: 1, Queue: 1},
	} {
		t.Run(name, func(t *testing.T) {
			blktest.TestDevice(t, func(t *testing.T) blk.Device { return open(t, newFile(t), o) })
		})
	}
}

// The page cache outlives the process: whatever the seed, everything written is
// there when the file is opened again.
func TestContentSurvivesClose(t *testing.T) {
	blktest.Suite{
		Open: func(t *testing.T) blk.Device { return open(t, newFile(t), Options{}) },
		Crash: func(t *testing.T, d blk.Device, _ uint64) blk.Device {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, d.String(), Options{})
		},
	}.Run(t)
}

func TestOpenErrorsNameTheFile(t *testing.T) {
	path := newFile(t)
	d := open(t, path, Options{})
	if _, err := Open(path, Options{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("second opening for writing: %v", err)
	}
	open(t, path, Options{ReadOnly: true}).Close()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, Options{}).Close()

	if _, err := Open(path+"x", Options{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path+"x") {
		t.Errorf("missing file: %v", err)
	}
	dir := filepath.Dir(path)
	if _, err := Open(dir, Options{ReadOnly: true}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("folder: %v", err)
	}
	if err := Create(path, 8); !errors.Is(err, os.ErrExist) {
		t.Errorf("create over a file: %v", err)
	}
}

func TestReadOnlyRefusesChanges(t *testing.T) {
	d := open(t, newFile(t), Options{ReadOnly: true})
	defer d.Close()
	if !d.Limits().ReadOnly {
		t.Error("limits")
	}
	for _, op := range []blk.Op{blk.Write, blk.Discard, blk.WriteZeroes} {
		if st := blk.Do(e, d, &blk.Bio{Op: op}); st != blk.ReadOnly {
			t.Errorf("%v: %v", op, st)
		}
	}
	if err := blk.FlushDevice(e, d); err != nil {
		t.Error(err)
	}
}

func TestRefreshSeesAnotherSize(t *testing.T) {
	path := newFile(t)
	d := open(t, path, Options{})
	defer d.Close()
	if err := os.Truncate(path, 5*512+100); err != nil {
		t.Fatal(err)
	}
	if d.Limits().Size != sectors {
		t.Error("the size changed by itself")
	}
	if err := blk.ReadSectors(e, d, make([]byte, 512), 100); err == nil {
		t.Error("read behind the end of the file succeeds")
	}
	if n, err := d.Refresh(); n != 5 || err != nil || d.Limits().Size != 5 {
		t.Errorf("%d sectors, %v", n, err)
	}
	if st := blk.Do(e, d, &blk.Bio{Op: blk.Discard, Sector: 5, Sectors: 1}); st != blk.Invalid {
		t.Error(st)
	}
}

// fake is a file with hooks in front of a real one.
type fake struct {
	file
	before func(call string, m mode) error // nil: continue
	most   int                             // bytes in one transfer; 0: no limit

	mu    sync.Mutex
	calls []string // guarded by mu
}

func (f *fake) hook(call string, m mode) error {
	if m != try {
		f.mu.Lock()
		f.calls = append(f.calls, call)
		f.mu.Unlock()
	}
	if f.before == nil {
		return nil
	}
	return f.before(call, m)
}

func (f *fake) cut(bufs [][]byte) [][]byte {
	if f.most == 0 {
		return bufs
	}
	var out [][]byte
	left := f.most
	for _, p := range bufs {
		p = p[:min(len(p), left)]
		out, left = append(out, p), left-len(p)
	}
	return out
}

func (f *fake) readv(bufs [][]byte, off int64, m mode) (int, error) {
	if err := f.hook("read", m); err != nil {
		return 0, err
	}
	return f.file.readv(f.cut(bufs), off, m)
}

func (f *fake) writev(bufs [][]byte, off int64, m mode) (int, error) {
	if err := f.hook("write"+strings.Repeat(" durable", int(m)/2), m); err != nil {
		return 0, err
	}
	return f.file.writev(f.cut(bufs), off, m)
}

func (f *fake) sync() error {
	if err := f.hook("sync", plain); err != nil {
		return err
	}
	return f.file.sync()
}

func (f *fake) zero(off, n int64, unmap bool) error {
	if err := f.hook(fmt.Sprint("zero ", unmap), plain); err != nil {
		return err
	}
	return f.file.zero(off, n, unmap)
}

// withFake opens a file with hooks. A single worker keeps the calls in order.
func withFake(t *testing.T, f *fake) *Device {
	d := open(t, newFile(t), Options{Workers: 1})
	f.file, d.f = d.f, f
	return d
}

func TestShortAndInterruptedTransfers(t *testing.T) {
	blktest.TestDevice(t, func(t *testing.T) blk.Device {
		var n atomic.Int64
		return withFake(t, &fake{most: 1000, before: func(_ string, m mode) error {
			if n.Add(1)%3 == 0 && m != try {
				return syscall.EINTR
			}
			return nil
		}})
	})
}

func TestErrorsOfWriteBackAreSticky(t *testing.T) {
	for _, first := range []string{"sync", "write durable"} {
		fail := true
		f := &fake{before: func(call string, _ mode) error {
			if fail && call == first {
				fail = false
				return syscall.EIO
			}
			return nil
		}}
		d := withFake(t, f)
		p := make([]byte, 512)
		var got []error
		if first != "sync" {
			got = append(got, blk.WriteSectors(e, d, p, 0, blk.FUA))
		}
		got = append(got, blk.FlushDevice(e, d), blk.FlushDevice(e, d), blk.WriteSectors(e, d, p, 0, blk.FUA),
			blk.WriteSectors(e, d, p, 0, blk.Preflush), blk.Do(e, d, &blk.Bio{Op: blk.WriteZeroes, Sectors: 1, Flags: blk.FUA}))
		for i, err := range got {
			if err != blk.IOErr {
				t.Errorf("%s failed; step %d after: %v", first, i, err)
			}
		}
		if n := len(f.calls) - slices.Index(f.calls, first) - 1; slices.Contains(f.calls[len(f.calls)-n:], "sync") {
			t.Errorf("synced again after the error: %v", f.calls)
		}
		if err := blk.ReadSectors(e, d, p, 0); err != nil {
			t.Errorf("read: %v", err)
		}
		d.Close()
	}
}

func TestCallsBehindEachOp(t *testing.T) {
	bio := func(op blk.Op, f blk.Flags) *blk.Bio {
		b := &blk.Bio{Op: op, Flags: f}
		if op.HasData() {
			b.SetData(make([]byte, 512))
		} else if op != blk.Flush {
			b.Sectors = 300
		}
		return b
	}
	for _, c := range []struct {
		b       *blk.Bio
		missing string // calls that the system does not have
		want    string
		st      blk.Status
	}{
		{bio(blk.Write, 0), "", "write", blk.OK},
		{bio(blk.Read, 0), "try", "read", blk.OK},
		{bio(blk.Write, blk.FUA), "", "write durable", blk.OK},
		{bio(blk.Write, blk.FUA), "write durable", "write durable, write, sync", blk.OK},
		{bio(blk.Write, blk.Preflush|blk.FUA), "", "sync, write durable", blk.OK},
		{bio(blk.WriteZeroes, 0), "", "zero true", blk.OK},
		{bio(blk.WriteZeroes, blk.NoUnmap|blk.FUA), "", "zero false, sync", blk.OK},
		{bio(blk.WriteZeroes, 0), "zero true", "zero true, write, write, write", blk.OK},
		{bio(blk.WriteZeroes, blk.FastZero), "zero true", "zero true", blk.NotSupported},
	} {
		f := &fake{before: func(call string, m mode) error {
			if call == c.missing || m == try && c.missing == "try" {
				return errors.ErrUnsupported
			}
			return nil
		}}
		d := withFake(t, f)
		st := blk.Do(e, d, c.b)
		if got := strings.Join(f.calls, ", "); got != c.want || st != c.st {
			t.Errorf("%v without %q: %v, calls %q, want %v, %q", c.b, c.missing, st, got, c.st, c.want)
		}
		d.Close()
	}
}

func benchmark(b *testing.B, op blk.Op, o Options) {
	d := open(b, newFile(b), o)
	defer d.Close()
	done := make(chan bool, 1)
	bio := &blk.Bio{Op: op, End: func(*blk.Bio) { done <- true }}
	p := aligned(4096, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for s := uint64(0); b.Loop(); s = (s + 8*7919) % sectors {
		bio.Rearm()
		bio.Sector = s
		bio.SetData(p)
		d.Submit(bio)
		<-done
	}
}

func BenchmarkRead4K(b *testing.B)  { benchmark(b, blk.Read, Options{}) }
func BenchmarkWrite4K(b *testing.B) { benchmark(b, blk.Write, Options{}) }
