package uring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withRing runs a test on a separate thread for each set of flags that the kernel supports.
func withRing(t *testing.T, o Options, test func(*testing.T, *Ring)) {
	for _, flags := range setups {
		done := make(chan bool)
		go func() {
			defer close(done)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r, err := newRing(o, flags)
			if errors.Is(err, unix.EINVAL) && flags != 0 {
				t.Logf("the kernel lacks setup flags among %#x", flags)
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			test(t, r)
		}()
		<-done
	}
}

// wait returns the next completion.
func wait(t *testing.T, r *Ring) (c Completion) {
	for {
		if c, ok := r.Next(); ok {
			return c
		}
		if err := r.Enter(1); err != nil {
			t.Error(err)
			return c
		}
	}
}

func newFile(t *testing.T) int {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// More requests than the queue holds are submitted in batches. Each completes once and has
// its effect.
func TestTransfers(t *testing.T) {
	fd := newFile(t)
	withRing(t, Options{Entries: 4}, func(t *testing.T, r *Ring) {
		const n, size = 100, 512
		data := make([]byte, n*size)
		for i := range data {
			data[i] = byte(i/size + i)
		}
		each := func(prepare func(e *Entry, i int)) {
			seen, pending := make([]bool, n), 0
			take := func() {
				c := wait(t, r)
				if c.Err() != nil || c.Result != size || c.More() || seen[c.User] {
					t.Errorf("request %d: %d, seen before: %v", c.User, c.Result, seen[c.User])
				}
				seen[c.User] = true
				pending--
			}
			for i := range n {
				e := r.Entry()
				for ; e == nil; e = r.Entry() {
					take()
				}
				prepare(e, i)
				e.User = uint64(i)
				pending++
			}
			for pending > 0 {
				take()
			}
		}
		vectors := make([][2]unix.Iovec, n)
		halves := func(p []byte, i int) []unix.Iovec {
			v := &vectors[i]
			v[0].Base, v[1].Base = &p[i*size], &p[i*size+size/2]
			v[0].SetLen(size / 2)
			v[1].SetLen(size / 2)
			return v[:]
		}
		got := make([]byte, len(data))
		each(func(e *Entry, i int) {
			e.Writev(fd, halves(data, i), int64(i*size))
		})
		each(func(e *Entry, i int) {
			e.Readv(fd, halves(got, i), int64(i*size))
		})
		if !bytes.Equal(got, data) {
			t.Error("what was read is not what was written")
		}
		if err := unix.Ftruncate(fd, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestErrorsComeWithTheCompletion(t *testing.T) {
	withRing(t, Options{Entries: 4}, func(t *testing.T, r *Ring) {
		r.Entry().Readv(-1, nil, 0)
		if c := wait(t, r); c.Err() != unix.EBADF {
			t.Errorf("no file: %v", c.Err())
		}
	})
}

// Commands work with entries of both sizes: a file without commands refuses them, and the
// next entry is processed as well.
func TestCommands(t *testing.T) {
	fd := newFile(t)
	for _, o := range []Options{{Entries: 4}, {Entries: 4, Big: true}} {
		withRing(t, o, func(t *testing.T, r *Ring) {
			for i := range uint64(4) {
				e := r.Entry()
				if o.Big {
					e.BigCommand(fd, 1, [80]byte{79: 1})
				} else {
					e.Command(fd, 1, [16]byte{15: 1})
				}
				e.User = i
			}
			for i := range uint64(4) {
				if c := wait(t, r); c.Err() != unix.EOPNOTSUPP || c.User != i {
					t.Errorf("command %d: %v of %d", i, c.Err(), c.User)
				}
			}
		})
	}
	var e Entry
	if unsafe.Sizeof(e) != 64 || unsafe.Offsetof(e.cmd) != 48 || unsafe.Offsetof(e.User) != 32 {
		t.Error("the layout of an entry")
	}
}

// No wakeup is lost: other goroutines add work and call Wake, the ring's goroutine sleeps
// whenever there is no work.
func TestWaker(t *testing.T) {
	withRing(t, Options{Entries: 4}, func(t *testing.T, r *Ring) {
		const workers, each = 4, 1000
		w, err := NewWaker()
		if err != nil {
			t.Error(err)
			return
		}
		defer w.Close()
		work := make(chan bool, workers*each)
		var all sync.WaitGroup
		for range workers {
			all.Go(func() {
				for range each {
					work <- true
					w.Wake()
				}
			})
		}
		w.Listen(r.Entry())
		for n := 0; n < workers*each; {
			w.Sleep()
			if len(work) == 0 {
				if err := r.Enter(1); err != nil {
					t.Error(err)
					break
				}
			}
			w.Awake()
			for ; len(work) > 0; n++ {
				<-work
			}
			for c, ok := r.Next(); ok; c, ok = r.Next() {
				if !c.More() {
					w.Listen(r.Entry())
				}
			}
		}
		all.Wait()
	})
}

// New reports ErrUnavailable if a process may not use io_uring.
func TestRefused(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPERM, unix.ENOSYS} {
		done := make(chan bool)
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked, so that the thread exits together with its filter
			if err := refuse(errno); err != nil {
				t.Error(err)
				return
			}
			if r, err := New(Options{Entries: 4}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errno) || r != nil {
				t.Errorf("%v: %v", errno, err)
			}
		}()
		<-done
	}
}

// refuse makes io_uring_setup fail on the calling thread.
func refuse(errno unix.Errno) error {
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // load the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_IO_URING_SETUP},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0)
}

// Close frees all resources of a ring.
func TestCloseFreesAll(t *testing.T) {
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := count()
	withRing(t, Options{Entries: 4}, func(*testing.T, *Ring) {})
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
