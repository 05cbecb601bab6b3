package filedev

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/blktest"
)

// openRing opens a new file with a ring; hook sees each of its transfers.
func openRing(t *testing.T, o Options, hook func(b *blk.Bio, v *[]unix.Iovec) unix.Errno) *Device {
	o.Direct = true
	d := open(t, newFile(t), o)
	if d.ring == nil {
		t.Fatal("no ring for a direct file")
	}
	d.ring.fault, d.ring.always = hook, true
	return d
}

// data is n sectors as O_DIRECT wants them.
func data(d *Device, n int) []byte { return aligned(n*blk.SectorSize, max(d.align, 512)) }

// Reads and plain writes with aligned buffers go by the ring, all else by the pool.
func TestWhatTheRingDoes(t *testing.T) {
	var seen atomic.Int32
	d := openRing(t, Options{}, func(*blk.Bio, *[]unix.Iovec) unix.Errno { seen.Add(1); return 0 })
	defer d.Close()
	if d.align < 2 {
		t.Fatalf("alignment %d", d.align)
	}
	n := int(d.Limits().LogicalBlock) / blk.SectorSize
	many := &blk.Bio{}
	many.SetBufs(func() (v [][]byte) {
		for range ringSegments + 1 {
			v = append(v, data(d, n))
		}
		return v
	}(), uint64(n*(ringSegments+1)))
	odd := &blk.Bio{}
	odd.SetData(aligned(n*512+1, 4096)[1:])
	with := func(op blk.Op, f blk.Flags) *blk.Bio {
		b := &blk.Bio{Op: op, Flags: f}
		b.SetData(data(d, n))
		return b
	}
	for i, c := range []struct {
		b    *blk.Bio
		want int32
	}{
		{with(blk.Write, 0), 1}, {with(blk.Read, 0), 1}, {with(blk.Write, blk.FUA), 0}, {with(blk.Write, blk.Preflush), 0},
		{many, 0}, {odd, 0}, {&blk.Bio{}, 0}, {&blk.Bio{Op: blk.Flush}, 0}, {&blk.Bio{Op: blk.Discard, Sectors: 8}, 0},
	} {
		seen.Store(0)
		if st := blk.Do(e, d, c.b); st != blk.OK || seen.Load() != c.want {
			t.Errorf("case %d, %v: %v, %d transfers by the ring, want %d", i, c.b, st, seen.Load(), c.want)
		}
	}
}

// With all that a ring can do done by it, and with one that is nearly always full.
func TestRingConformance(t *testing.T) {
	for name, o := range map[string]Options{"long": {}, "short": {Workers: 1, Queue: 1, Ring: 1}} {
		t.Run(name, func(t *testing.T) {
			blktest.TestDevice(t, func(t *testing.T) blk.Device { return openRing(t, o, nil) })
		})
	}
}

// What comes alone goes by the pool, and what comes beside it by the ring.
func TestDepthOneIsThePools(t *testing.T) {
	const n = 20
	var seen atomic.Int32
	d := openRing(t, Options{}, func(*blk.Bio, *[]unix.Iovec) unix.Errno { seen.Add(1); return 0 })
	d.ring.always = false
	for range n {
		b := &blk.Bio{Op: blk.Write}
		b.SetData(data(d, 8))
		if st := blk.Do(e, d, b); st != blk.OK {
			t.Fatal(st)
		}
		d.pool.close() // its goroutine may be in End
	}
	if seen.Load() != 0 {
		t.Errorf("%d of %d transfers one by one went by the ring", seen.Load(), n)
	}
	var all sync.WaitGroup
	for i := range n {
		all.Add(1)
		b := &blk.Bio{Op: blk.Write, Sector: uint64(i) * 8, End: func(*blk.Bio) { all.Done() }}
		b.SetData(data(d, 8))
		if d.pool.mu.Lock(); i == 0 {
			d.pool.busy++ // a bio that takes long
		}
		d.pool.mu.Unlock()
		d.Submit(b)
	}
	all.Wait()
	if seen.Load() != n {
		t.Errorf("%d of %d transfers beside another went by the ring", seen.Load(), n)
	}
	d.Close()
}

// Bios each of which is submitted by the end of the one before go by the ring, the first and
// perhaps the second excepted.
func TestChainIsTheRings(t *testing.T) {
	const n = 50
	var seen atomic.Int32
	d := openRing(t, Options{}, func(*blk.Bio, *[]unix.Iovec) unix.Errno { seen.Add(1); return 0 })
	defer d.Close()
	d.ring.always = false
	left, ended := n, make(chan struct{})
	b := &blk.Bio{Op: blk.Write}
	b.SetData(data(d, 8))
	b.End = func(b *blk.Bio) {
		if left--; left == 0 || b.Status() != blk.OK {
			close(ended)
			return
		}
		b.Rearm()
		b.Sector, b.Sectors = uint64(n-left)*8, 8
		d.Submit(b)
	}
	d.Submit(b)
	<-ended
	if got := seen.Load(); left > 0 || got < n-2 {
		t.Errorf("%d are left; %d of %d went by the ring", left, got, n)
	}
}

// Transfers that end short or in an error are done again by the pool, whole.
func TestRingFaults(t *testing.T) {
	blktest.TestDevice(t, func(t *testing.T) blk.Device {
		var n atomic.Int64
		return openRing(t, Options{}, func(_ *blk.Bio, v *[]unix.Iovec) unix.Errno {
			switch n.Add(1) % 6 {
			case 1: // short
				(*v)[0].SetLen(512)
				*v = (*v)[:1]
			case 2: // nothing, as at the end of a file
				*v = nil
			case 3: // failed, and nothing has been done
				*v = nil
				return unix.EIO
			case 4:
				return unix.EINTR
			case 5:
				return unix.EAGAIN
			}
			return 0
		})
	})
}

// What the pool says of an error that it meets as well is what the submitter hears.
func TestRingErrorsThatStay(t *testing.T) {
	d := openRing(t, Options{}, nil)
	if err := os.Truncate(d.path, 0); err != nil {
		t.Fatal(err)
	}
	b := &blk.Bio{}
	b.SetData(data(d, 8))
	if st := blk.Do(e, d, b); st != blk.IOErr {
		t.Errorf("a read behind the end of the file: %v", st)
	}
	d.Close()
}

// The ring holds no more than its slots: what comes then goes by the pool, also from an
// End on the ring's own goroutine.
func TestRingIsBounded(t *testing.T) {
	const slots, chains, length = 2, 16, 50
	var most, ended atomic.Int32
	d := openRing(t, Options{Workers: 1, Queue: 1, Ring: slots}, nil)
	d.ring.fault = func(*blk.Bio, *[]unix.Iovec) unix.Errno {
		most.Store(max(most.Load(), int32(slots-len(d.ring.free)))) // on one goroutine
		return 0
	}
	var all sync.WaitGroup
	d.ring.begin.Do(func() {}) // below, when each slot has a transfer
	for i := range chains {
		left := length
		b := &blk.Bio{Op: blk.Op(i % 2), Sector: uint64(i) * 8}
		p := data(d, 8)
		b.SetData(p)
		all.Add(1)
		b.End = func(b *blk.Bio) {
			ended.Add(1)
			if b.Status() != blk.OK {
				t.Error(b.Status())
			}
			if left--; left == 0 {
				all.Done()
				return
			}
			b.Rearm()
			b.SetData(p)
			d.Submit(b)
		}
		if i < slots {
			d.Submit(b)
			continue
		}
		if i == slots {
			go d.ring.run()
		}
		go d.Submit(b)
	}
	all.Wait()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if most.Load() != slots {
		t.Errorf("%d transfers at the same time, want %d", most.Load(), slots)
	}
	if ended.Load() != chains*length || d.ring.taken.Load() != 0 || len(d.ring.free) != slots {
		t.Errorf("%d ended, %d slots still taken, %d free", ended.Load(), d.ring.taken.Load(), len(d.ring.free))
	}
}

// Close waits for what is under way, and what the pool does again of it.
func TestCloseWaitsForTheRing(t *testing.T) {
	for range 20 {
		var n, ended atomic.Int32
		d := openRing(t, Options{}, func(_ *blk.Bio, v *[]unix.Iovec) unix.Errno {
			return []unix.Errno{0, unix.EINTR}[n.Add(1)%2]
		})
		for i := range 50 {
			b := &blk.Bio{Op: blk.Write, Sector: uint64(i) * 8, End: func(*blk.Bio) { ended.Add(1) }}
			b.SetData(data(d, 8))
			d.Submit(b)
		}
		d.Close()
		if ended.Load() != 50 {
			t.Fatalf("%d of 50 had ended when Close returned", ended.Load())
		}
		open(t, d.path, Options{}).Close() // and the lock is free
	}
}

// A file that is opened for direct I/O works where io_uring is refused.
func TestWithoutIoUring(t *testing.T) {
	if os.Getenv("FILEDEV_TEST_REFUSED") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWithoutIoUring$", "-test.v")
		cmd.Env = append(os.Environ(), "FILEDEV_TEST_REFUSED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	refuseRings(t)
	blktest.TestDevice(t, func(t *testing.T) blk.Device {
		return openRing(t, Options{}, func(*blk.Bio, *[]unix.Iovec) unix.Errno {
			t.Error("a ring although it is refused")
			return 0
		})
	})
}

// refuseRings makes io_uring_setup fail in this process.
func refuseRings(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_IO_URING_SETUP},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	p := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	if errno != 0 {
		t.Fatal(errno)
	}
}
