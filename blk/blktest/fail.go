package blktest

import (
	"fmt"
	"sync"
	"testing"

	"udm/blk"
)

// Failer makes one I/O of a scenario fail: see FailEach and FullEach.
type Failer struct {
	n      int
	sticky bool       // all later ones fail too
	status blk.Status // how they fail

	mu    sync.Mutex
	count int    // guarded by mu; I/Os seen so far
	what  string // guarded by mu; the I/O that failed; "": none yet
	roomy bool   // guarded by mu; nothing fails any more
}

// Wrap returns d with the failure injected. The I/Os of all wrapped devices of a
// scenario, flushes included, are counted together. The wrapper does not own d.
func (f *Failer) Wrap(d blk.Device) blk.Device { return &failing{Device: d, f: f} }

// Failed reports whether an I/O has failed.
func (f *Failer) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.what != ""
}

// Sticky reports whether all I/Os after the failing one fail, too.
func (f *Failer) Sticky() bool { return f.sticky }

func (f *Failer) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.what == "" {
		return fmt.Sprintf("no failure (at I/O %d), %d I/Os", f.n, f.count)
	}
	return fmt.Sprintf("failing I/O %d, %s, sticky=%v", f.n, f.what, f.sticky)
}

// MakeSpace ends what FullEach has begun: from now on there is space.
func (f *Failer) MakeSpace() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.roomy = true
}

func (f *Failer) fails(d blk.Device, b *blk.Bio) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.roomy || f.status == blk.NoSpace && b.Op != blk.Write && b.Op != blk.WriteZeroes {
		return false
	}
	i := f.count
	f.count++
	if i == f.n {
		f.what = fmt.Sprintf("%v of %v", b, d)
	}
	return i == f.n || f.sticky && i > f.n
}

type failing struct {
	blk.Device
	f *Failer
}

func (d *failing) Submit(b *blk.Bio) {
	if d.f.fails(d.Device, b) {
		b.Complete(d.f.status)
		return
	}
	d.Device.Submit(b)
}

// Extents is that of the device below.
func (d *failing) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(d.Device, sector, sectors), nil
}

func (d *failing) Close() error { return nil }

// FailEach runs scenario with I/O number 0 to its wrapped devices failing, then
// number 1, and so on until a run ends before its I/O. Each number is tried
// twice: with only that I/O failing, and with all later ones failing as well. The
// scenario starts from scratch each time. It must itself check that the failure
// was reported and what it left behind. FailEach returns the number of I/Os of
// the run without a failure.
func FailEach(t *testing.T, scenario func(t *testing.T, f *Failer)) int {
	t.Helper()
	return FailEvery(t, 1, scenario)
}

// FailEvery is FailEach with I/O number 0, every, 2*every and so on.
func FailEvery(t *testing.T, every int, scenario func(t *testing.T, f *Failer)) int {
	t.Helper()
	return failEvery(t, every, blk.IOErr, scenario)
}

// FullEach is FailEvery for disks on a file system that is full: only what writes
// is counted, and it ends with NoSpace. The scenario gives space back with MakeSpace.
func FullEach(t *testing.T, every int, scenario func(t *testing.T, f *Failer)) int {
	t.Helper()
	return failEvery(t, every, blk.NoSpace, scenario)
}

func failEvery(t *testing.T, every int, st blk.Status, scenario func(t *testing.T, f *Failer)) int {
	t.Helper()
	for n := 0; ; n += every {
		for _, sticky := range []bool{false, true} {
			f := &Failer{n: n, sticky: sticky, status: st}
			scenario(t, f)
			if t.Failed() {
				t.Fatalf("failed with: %v", f)
			}
			if !f.Failed() {
				return f.count
			}
		}
	}
}
