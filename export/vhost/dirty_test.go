//go:build linux

package vhost

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/blk/blktest"
	"udm/blk/memdev"
)

const logLen = (guestAt + memLen) / logPage / 8

// logged makes the rings log to a bitmap of the front end, and returns it.
func (f *front) logged() []byte {
	f.t.Helper()
	fd := must[int](f.t)(unix.MemfdCreate("log", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING))
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, logLen); err != nil {
		f.t.Fatal(err)
	}
	log := must[[]byte](f.t)(unix.Mmap(fd, 0, logLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	f.t.Cleanup(func() { _ = unix.Munmap(log) })
	if got := f.ask(&message{request: setLogBase, log: logDesc{size: logLen}}, fd); got.value != 0 {
		f.t.Fatalf("the log is refused: %d", got.value)
	}
	return log
}

// accept accepts the offered features again, with or without some.
func (f *front) accept(without uint64) {
	features := f.ask(&message{request: getFeatures}).value &^ without
	if !f.packed {
		features &^= featPacked
	}
	f.mustDo(&message{request: setFeatures, value: features})
}

// collect takes the marks out of a log, and returns the offsets of the pages in f.mem.
func (f *front) collect(log []byte) (pages []int) {
	for at := 0; at < len(log); at += 4 {
		bits := atomic.SwapUint32((*uint32)(unsafe.Pointer(&log[at])), 0)
		for n := range 32 {
			if bits&(1<<n) != 0 {
				pages = append(pages, (8*at+n)*logPage-guestAt)
			}
		}
	}
	return pages
}

var kindsOfRings = map[string]func(testing.TB, string, bool, uint64) *front{"split": guest, "packed": packedGuest}

// What a request and its ring write is marked, and nothing else.
func TestLoggedPages(t *testing.T) {
	for name, begin := range kindsOfRings {
		for _, sealable := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s sealable=%v", name, sealable), func(t *testing.T) {
				_, path := serve(t, newDisk(), nil)
				loggedPages(t, begin(t, path, sealable, featLogAll))
			})
		}
	}
}

func loggedPages(t *testing.T, f *front) {
	log := f.logged()
	check := func(why string, want ...int) {
		t.Helper()
		if f.packed && len(want) > 0 {
			want = append([]int{0}, want...) // used elements take the place of descriptors
		}
		if got := f.collect(log); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: marked %#x, want %#x", why, got, want)
		}
	}
	quiet := func() { f.mustDo(&message{request: setVringEnable, num: 1}) } // between two rounds
	f.read(0, 512)
	check("features without logging")
	f.accept(0)
	f.read(0, 8192)
	quiet()
	check("a read", usedOff, headOff, dataOff, dataOff+logPage)
	f.write(0, blktest.Pattern(0, 8, 1))
	quiet()
	check("a write", usedOff, headOff)
	f.do(&ioreq{op: typeID, in: 20})
	quiet()
	check("the serial number", usedOff, headOff, dataOff)
	f.do(&ioreq{op: typeFlush})
	quiet()
	check("a flush", usedOff, headOff)
	next := f.logged()
	f.collect(log) // a worker that goes to sleep writes to its ring
	f.read(0, 512)
	quiet()
	check("the log before")
	log = next
	check("another log", usedOff, headOff, dataOff)
	f.accept(featLogAll)
	f.collect(log)
	f.read(0, 512)
	quiet()
	check("the end of logging")
}

// A read that is in flight when logging begins is marked when it ends.
func TestLogBeginsUnderRequests(t *testing.T) {
	d := &held{elsewhere{Device: memdev.New(sectors)}, make(chan struct{})}
	_, path := serve(t, d, nil)
	f := guest(t, path, true, featLogAll)
	f.add(&ioreq{slot: 3, op: typeIn, in: 4096})
	f.publish()
	log := f.logged()
	f.accept(0)
	close(d.open)
	f.wait()
	f.ask(&message{request: getVringBase})
	if got := f.collect(log); fmt.Sprint(got) != fmt.Sprint([]int{usedOff, headOff, dataOff + 3*slotLen}) {
		t.Errorf("marked: %#x", got)
	}
}

// A front end that copies marked pages while the guest runs has them all after the ring has
// stopped, and is notified of marks.
func TestMigration(t *testing.T) {
	for name, begin := range kindsOfRings {
		t.Run(name, func(t *testing.T) {
			d := newScattered(t)
			_, path := serve(t, d, nil)
			f := begin(t, path, true, featLogAll)
			told := must[int](t)(unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK))
			defer unix.Close(told)
			f.mustDo(&message{request: setLogFD}, told)
			f.write(0, blktest.Pattern(0, 32, 1))
			log := f.logged()
			f.accept(0)
			f.migrate(log)
			if n, err := unix.Read(told, make([]byte, 8)); n != 8 {
				t.Errorf("no notification: %v", err)
			}
		})
	}
}

func (f *front) migrate(log []byte) {
	to := bytes.Clone(f.mem)
	update := func() {
		for _, page := range f.collect(log) {
			copy(to[page:][:logPage], f.mem[page:])
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	next := func(slot int) {
		f.add(&ioreq{slot: slot, op: typeIn, sector: r.Uint64N(64), in: 512 * (1 + r.IntN(16))})
	}
	for slot := range 16 {
		next(slot)
	}
	f.publish()
	for i := range 2000 {
		if i%20 == 0 {
			update()
		}
		next(f.wait().slot)
		f.publish()
	}
	for len(f.sent) > 0 {
		f.wait()
	}
	f.ask(&message{request: getVringBase})
	update()
	for _, part := range [][2]int{{usedOff, usedOff + logPage}, {dataOff, memLen}} { // the rest is written by the guest, too
		if !bytes.Equal(to[part[0]:part[1]], f.mem[part[0]:part[1]]) {
			f.t.Errorf("memory from %#x to %#x was written and not marked", part[0], part[1])
		}
	}
}

// The next server goes on with the log.
func TestLogMoves(t *testing.T) {
	c := newChain(t, newDisk())
	f := guest(t, c.path, true, 0)
	told := must[int](t)(unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK))
	defer unix.Close(told)
	f.mustDo(&message{request: setLogFD}, told)
	log := f.logged()
	for range 2 {
		c.next()
		f.collect(log)
		clearEventFD(told)
		f.read(0, 512)
		f.ask(&message{request: getVringBase})
		if got := f.collect(log); fmt.Sprint(got) != fmt.Sprint([]int{usedOff, headOff, dataOff}) {
			t.Errorf("marked: %#x", got)
		}
		if n, err := unix.Read(told, make([]byte, 8)); n != 8 {
			t.Errorf("no notification: %v", err)
		}
		f.negotiate(0)
		f.start(0)
	}
}

// Logs that make no sense are refused, and the memory of one may go away.
func TestHostileLogs(t *testing.T) {
	for name, c := range map[string]struct {
		desc  logDesc
		files int
	}{
		"no file":    {logDesc{size: logLen}, 0},
		"empty":      {logDesc{}, 1},
		"odd":        {logDesc{size: 12}, 1},
		"odd offset": {logDesc{size: 8, offset: 4}, 1},
		"too long":   {logDesc{size: 8192}, 1},
		"wraps":      {logDesc{size: 1<<64 - 8, offset: 16}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, path := serve(t, newDisk(), nil)
			f := guest(t, path, true, 0)
			fd := must[int](t)(unix.MemfdCreate("log", unix.MFD_CLOEXEC))
			defer unix.Close(fd)
			if err := unix.Ftruncate(fd, 4096); err != nil {
				t.Fatal(err)
			}
			f.send(&message{request: setLogBase, log: c.desc}, []int{fd}[:c.files]...)
			f.hungUp()
		})
	}
}

func TestLogThatGoesAway(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	fd := must[int](t)(unix.MemfdCreate("log", unix.MFD_CLOEXEC)) // cannot be sealed
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, logLen); err != nil {
		t.Fatal(err)
	}
	f.ask(&message{request: setLogBase, log: logDesc{size: logLen}}, fd)
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	f.add(&ioreq{op: typeIn, in: 512})
	f.publish()
	f.hungUp()
}
