//go:build linux

package vhost

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/export"
	"udm/export/internal/virtq"
)

const sectors = 4096

// plain is a disk with everything, whose bios the test sees.
type plain struct {
	*memdev.Device
	seen func(*blk.Bio)
}

func (d *plain) Submit(b *blk.Bio) {
	if d.seen != nil {
		d.seen(b)
	}
	d.Device.Submit(b)
}

func newDisk() *memdev.Device { return memdev.New(sectors, memdev.Volatile) }

// elsewhere ends its bios on other goroutines.
type elsewhere struct {
	*memdev.Device
	wg sync.WaitGroup
}

func (d *elsewhere) Submit(b *blk.Bio) { d.wg.Go(func() { d.Device.Submit(b) }) }

// scattered ends some of its bios on other goroutines, and the others before Submit returns.
type scattered struct {
	*memdev.Device
	others chan *blk.Bio
}

func newScattered(t *testing.T) *scattered {
	d := &scattered{memdev.New(sectors), make(chan *blk.Bio, 16)}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for b := range d.others {
				d.Device.Submit(b)
			}
		})
	}
	t.Cleanup(func() {
		close(d.others)
		wg.Wait()
	})
	return d
}

func (d *scattered) Submit(b *blk.Bio) {
	if b.Sector%4 == 0 {
		d.others <- b
	} else {
		d.Device.Submit(b)
	}
}

func span(sector uint64, n, flags uint32) []byte {
	p := binary.LittleEndian.AppendUint64(nil, sector)
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(p, n), flags)
}

// Every request, on memory that is worked on and on memory that is copied, with
// every kind of ring.
func TestRequests(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	for _, sealable := range []bool{true, false} {
		for _, without := range []uint64{0, featEventIdx, featIndirect, featEventIdx | featIndirect | featFlush} {
			for _, begin := range []func(testing.TB, string, bool, uint64) *front{guest, packedGuest} {
				f := begin(t, path, sealable, without)
				everyRequest(t, f)
				f.close()
			}
		}
	}
}

func everyRequest(t *testing.T, f *front) {
	t.Helper()
	p := blktest.Pattern(8, 16, 3)
	if st := f.write(8, p); st != statusOK {
		t.Fatalf("write: %d", st)
	}
	if got, st := f.read(8, len(p)); st != statusOK || !bytes.Equal(got, p) {
		t.Fatalf("read: %d, the same: %v", st, bytes.Equal(got, p))
	}
	if r := f.do(&ioreq{op: typeIn, sector: 8, in: 8192}); r.len != 8193 {
		t.Errorf("a read of 8192 bytes wrote %d", r.len)
	}
	if r := f.do(&ioreq{op: typeFlush}); r.status != statusOK || r.len != 1 {
		t.Errorf("flush: %+v", r)
	}
	if r := f.do(&ioreq{op: typeID, in: 20}); r.status != statusOK || string(f.data(0, 20)) != "serial-of-20-bytes-!" || r.len != 21 {
		t.Errorf("the serial is %q", f.data(0, 20))
	}
	for _, op := range []uint32{typeDiscard, typeWriteZeroes} {
		copy(f.data(0, 16), span(8, 8, 0))
		if r := f.do(&ioreq{op: op, out: 16}); r.status != statusOK {
			t.Errorf("type %d: %d", op, r.status)
		}
	}
	if got, _ := f.read(8, 8192); !bytes.Equal(got, append(make([]byte, 4096), p[4096:]...)) {
		t.Error("the range is not zeroes, or more is")
	}
}

func TestRequestsThatFail(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	for name, c := range map[string]struct {
		r    ioreq
		data []byte
		want byte
	}{
		"type":             {ioreq{op: 99}, nil, statusUnsupported},
		"secure erase":     {ioreq{op: 14, out: 16}, nil, statusUnsupported},
		"half a sector":    {ioreq{op: typeIn, in: 256}, nil, statusIOErr},
		"behind the end":   {ioreq{op: typeIn, sector: sectors - 1, in: 1024}, nil, statusIOErr},
		"wraps":            {ioreq{op: typeOut, sector: 1<<64 - 1, out: 1024}, nil, statusIOErr},
		"discard behind":   {ioreq{op: typeDiscard, out: 16}, span(sectors, 1, 0), statusIOErr},
		"discard wraps":    {ioreq{op: typeDiscard, out: 16}, span(1<<64-1, 8, 0), statusIOErr},
		"discard too long": {ioreq{op: typeDiscard, out: 16}, span(0, maxRange+1, 0), statusIOErr},
		"discard unmap":    {ioreq{op: typeDiscard, out: 16}, span(0, 8, 1), statusUnsupported},
		"zeroes flag":      {ioreq{op: typeWriteZeroes, out: 16}, span(0, 8, 2), statusUnsupported},
		"two ranges":       {ioreq{op: typeDiscard, out: 32}, nil, statusIOErr},
		"half a range":     {ioreq{op: typeDiscard, out: 8}, nil, statusIOErr},
	} {
		clear(f.data(0, 64))
		copy(f.data(0, 64), c.data)
		if r := f.do(&c.r); r.status != c.want {
			t.Errorf("%s: status %d, want %d", name, r.status, c.want)
		}
	}
	everyRequest(t, f) // all is well
}

func TestConfigSpace(t *testing.T) {
	d := memdev.New(sectors, memdev.Volatile, memdev.Tune(func(l *blk.Limits) {
		l.LogicalBlock, l.PhysicalBlock, l.MinIO, l.OptIO = 1024, 4096, 8192, 65536
	}))
	_, path := serve(t, d, nil)
	f := connect(t, path, true)
	c := f.ask(&message{request: getConfig, config: configPart{data: make([]byte, 96)}}).config.data
	le := binary.LittleEndian
	for off, want := range map[int]uint64{0: sectors, 8: sizeMax, 12: segMax, 20: 1024, 28: 64, 36: maxRange, 48: maxRange, 60: 0} {
		if got := uint64(le.Uint32(c[off:])); got != want {
			t.Errorf("offset %d: %d, want %d", off, got, want)
		}
	}
	if c[24] != 2 || le.Uint16(c[26:]) != 8 || le.Uint16(c[34:]) != 2 || c[56] != 1 {
		t.Errorf("% x", c)
	}
	if part := f.ask(&message{request: getConfig, config: configPart{offset: 20, data: make([]byte, 4)}}).config; le.Uint32(part.data) != 1024 || part.offset != 20 {
		t.Errorf("%+v", part)
	}
}

func TestReadOnly(t *testing.T) {
	_, path := serve(t, newDisk(), func(_ *Config, x *export.Export) { x.ReadOnly = true })
	f := guest(t, path, true, 0)
	if got := f.ask(&message{request: getFeatures}).value; got&featReadOnly == 0 || got&(featDiscard|featWriteZeroes) != 0 {
		t.Errorf("features %#x", got)
	}
	if st := f.write(0, make([]byte, 512)); st != statusIOErr {
		t.Errorf("a write: %d", st)
	}
	copy(f.data(0, 16), span(0, 8, 0))
	if r := f.do(&ioreq{op: typeWriteZeroes, out: 16}); r.status != statusIOErr {
		t.Errorf("write-zeroes: %d", r.status)
	}
	if _, st := f.read(0, 512); st != statusOK {
		t.Errorf("a read: %d", st)
	}
}

// The flags that writes have: who cannot flush needs writes that last, and who
// shares memory cannot promise that data stays.
func TestFlagsOfWrites(t *testing.T) {
	for _, c := range []struct {
		sealable bool
		without  uint64
		want     blk.Flags
	}{
		{true, 0, blk.Unstable},
		{true, featFlush, blk.Unstable | blk.FUA},
		{false, 0, 0},
		{false, featFlush, blk.FUA},
	} {
		seen := make(chan blk.Flags, 8)
		d := &plain{newDisk(), func(b *blk.Bio) { seen <- b.Flags }}
		d.Device = memdev.New(sectors, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.FUA = true }))
		_, path := serve(t, d, nil)
		f := guest(t, path, c.sealable, c.without)
		if st := f.write(0, make([]byte, 512)); st != statusOK || len(seen) != 1 || <-seen != c.want {
			t.Errorf("%+v: status %d", c, st)
		}
	}
}

var requests = flag.Int("requests", 3000, "requests of each guest of TestRandomRequests")

// Many requests under way that end anywhere and in any order, while the table of
// memory is replaced, with workers that sleep and that watch their rings.
func TestRandomRequests(t *testing.T) {
	for name, begin := range map[string]func(testing.TB, string, bool, uint64) *front{"split": guest, "packed": packedGuest} {
		for _, sealable := range []bool{true, false} {
			for _, poll := range []time.Duration{-1, time.Millisecond} {
				t.Run(fmt.Sprintf("%s sealable=%v poll=%v", name, sealable, poll > 0), func(t *testing.T) {
					_, path := serve(t, newScattered(t), func(c *Config, _ *export.Export) { c.Poll = poll })
					randomRequests(t, begin(t, path, sealable, 0), *requests)
				})
			}
		}
	}
}

func randomRequests(t *testing.T, f *front, n int) {
	random(t, f, n, func(i int) {
		if i%100 == 0 {
			f.mustDo(&message{request: setMemTable, regions: []regionDesc{f.region()}}, f.fd)
		}
	})
}

// random keeps 16 slots busy, each with a part of the disk of its own, and calls
// between after each request. It publishes some requests at once and some together.
func random(t *testing.T, f *front, n int, between func(i int)) {
	const slots, part = 16, 128
	r := rand.New(rand.NewPCG(5, 6))
	written := make(versions, slots*part)
	var reqs [slots]ioreq
	hidden := 0 // added, but not published
	next := func(slot int) {
		q := &reqs[slot]
		*q = ioreq{slot: slot, op: typeIn, sector: uint64(slot*part + r.IntN(part-8)), in: 512}
		if r.IntN(4) == 0 {
			q.in += 512 * r.IntN(8)
		}
		if r.IntN(2) == 0 {
			q.op, q.out, q.in = typeOut, q.in, 0
			written.next(q.sector, f.data(slot, q.out))
		}
		f.add(q)
		hidden++
	}
	publish := func() {
		f.publish()
		hidden = 0
	}
	for s := range slots {
		next(s)
	}
	for i := range n {
		if hidden == slots || r.IntN(4) == 0 {
			publish()
		}
		q := f.wait()
		if q.status != statusOK || q.op == typeIn && !written.are(q.sector, f.data(q.slot, q.in)) {
			t.Fatalf("request %d: %+v", i, q)
		}
		next(q.slot)
		between(i)
	}
	publish()
	for len(f.sent) > 0 {
		f.wait()
	}
}

// versions say how often each sector of a disk was written, and thereby what is in it: number
// and version at both ends, between them what is the same in all, unless it was never written.
type versions []uint32

var filling, zeroes = blktest.Pattern(0, 1, 9), make([]byte, 512)

func (v versions) stamp(sector uint64) uint64 { return uint64(v[sector])<<32 | sector }

// next makes the next content of sectors.
func (v versions) next(sector uint64, p []byte) {
	for ; len(p) > 0; sector, p = sector+1, p[512:] {
		v[sector]++
		copy(p, filling)
		binary.LittleEndian.PutUint64(p, v.stamp(sector))
		binary.LittleEndian.PutUint64(p[504:], v.stamp(sector))
	}
}

// are reports whether p is the content of sectors.
func (v versions) are(sector uint64, p []byte) bool {
	for ; len(p) > 0; sector, p = sector+1, p[512:] {
		switch {
		case v[sector] == 0:
			if !bytes.Equal(p[:512], zeroes) {
				return false
			}
		case binary.LittleEndian.Uint64(p) != v.stamp(sector), binary.LittleEndian.Uint64(p[504:]) != v.stamp(sector), !bytes.Equal(p[8:504], filling[8:504]):
			return false
		}
	}
	return true
}

// A ring that is stopped has nothing under way, and goes on where it was.
func TestStopAndGoOn(t *testing.T) {
	for name, begin := range map[string]func(testing.TB, string, bool, uint64) *front{"split": guest, "packed": packedGuest} {
		for _, without := range []uint64{0, featEventIdx} {
			t.Run(fmt.Sprint(name, " without ", without), func(t *testing.T) {
				d := &elsewhere{Device: newDisk()}
				_, path := serve(t, d, nil)
				stopAndGoOn(t, begin(t, path, true, without))
			})
		}
	}
}

func stopAndGoOn(t *testing.T, f *front) {
	for round := range 6 {
		for s := range 8 {
			f.add(&ioreq{slot: s, op: typeIn, in: 512})
		}
		f.publish()
		base := f.ask(&message{request: getVringBase}).num
		done := 0
		for {
			head, _, ok := f.d.Reap()
			if !ok {
				break
			}
			delete(f.sent, head)
			done++
		}
		if want := uint32(8*round + done); base != want && !f.packed {
			t.Fatalf("round %d: the ring stands at %d, %d are back", round, base, want)
		}
		f.start(base)
		for len(f.sent) > 0 {
			f.wait()
		}
	}
}

// held ends its bios on other goroutines, and not before open is closed.
type held struct {
	elsewhere
	open chan struct{}
}

func (d *held) Submit(b *blk.Bio) {
	d.wg.Go(func() {
		<-d.open
		d.Device.Submit(b)
	})
}

// A guest's memory that is cut while requests are under way ends its connection, and
// nothing else.
func TestTruncatedMemory(t *testing.T) {
	for _, left := range []int64{0, tableOff, headOff, dataOff} {
		d := &held{elsewhere{Device: newDisk()}, make(chan struct{})}
		_, path := serve(t, d, nil)
		f := guest(t, path, false, 0)
		for s := range 16 {
			f.add(&ioreq{slot: s, op: typeIn, in: 8192})
		}
		f.publish()
		if err := unix.Ftruncate(f.fd, left); err != nil {
			t.Fatal(err)
		}
		close(d.open)
		unix.Write(f.kick, one[:])
		f.hungUp()
		f.close()
		everyRequest(t, guest(t, path, false, 0))
	}
}

func TestSealedMemory(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	if err := unix.Ftruncate(f.fd, 0); err == nil {
		t.Error("sealed memory can be cut")
	}
	everyRequest(t, f)
}

func TestOneFrontEnd(t *testing.T) {
	s, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	second := &front{t: t, c: dial(t, path)}
	defer second.c.Close()
	second.hungUp()
	everyRequest(t, f)
	if len(s.Clients()) != 1 {
		t.Error(s.Clients())
	}
}

// Regions come and go while the ring runs.
func TestSlots(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	more := regionDesc{guestAt + memLen, memLen / 2, userAt + memLen, memLen / 2}
	for range 3 {
		f.mustDo(&message{request: addMemReg, regions: []regionDesc{more}}, f.fd)
		if f.acked(&message{request: addMemReg, regions: []regionDesc{more}}, f.fd) {
			t.Error("the same region twice")
		}
		everyRequest(t, f)
		f.mustDo(&message{request: remMemReg, regions: []regionDesc{more}})
	}
	if f.acked(&message{request: remMemReg, regions: []regionDesc{f.region()}}) {
		t.Error("the region that the ring lies in is gone")
	}
	everyRequest(t, f)
}

// A table that one ring cannot go on with changes nothing for the others.
func TestMemoryOfAllRings(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	more := regionDesc{guestAt + memLen, memLen / 2, userAt + memLen, memLen / 2}
	f.mustDo(&message{request: addMemReg, regions: []regionDesc{more}}, f.fd)
	kick := must[int](t)(unix.Eventfd(0, unix.EFD_CLOEXEC))
	defer unix.Close(kick)
	f.mustDo(&message{request: setVringNum, index: 1, num: 8})
	f.mustDo(&message{request: setVringAddr, index: 1, addr: ringAddr{desc: more.user, avail: more.user + 4096, used: more.user + 8192}})
	f.mustDo(&message{request: setVringKick, value: 1}, kick)
	f.mustDo(&message{request: setVringEnable, index: 1, num: 1})
	if f.acked(&message{request: remMemReg, regions: []regionDesc{more}}) {
		t.Error("the region that a ring lies in is gone")
	}
	f.d.Add([]virtq.Buf{{Addr: guestAt + headOff, Len: 16}}, []virtq.Buf{{Addr: more.guest + 16384, Len: 512}, {Addr: guestAt + headOff + 16, Len: 1}})
	clear(f.mem[headOff : headOff+16])
	f.sent[0] = &ioreq{}
	f.publish()
	if r := f.wait(); r.status != statusOK {
		t.Errorf("ring 0 has lost the region: status %d", r.status)
	}
}

// User-mode Linux is called by sockets, or pipes. One that is full blocks nobody.
func TestOtherNotifiers(t *testing.T) {
	for name, make := range map[string]func(p []int) error{
		"pipe": func(p []int) error { return unix.Pipe2(p, unix.O_CLOEXEC) },
		"socket": func(p []int) error {
			both, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			copy(p, both[:])
			return err
		},
	} {
		_, path := serve(t, newDisk(), nil)
		f := guest(t, path, true, 0)
		var p [2]int
		if err := make(p[:]); err != nil {
			t.Fatal(err)
		}
		fill(t, p[1])
		f.mustDo(&message{request: setVringCall}, p[1])
		unix.Close(p[1])
		closeFD(&f.call)
		f.call = p[0]
		t.Log(name)
		everyRequest(t, f)
	}
}

// fill fills a pipe or socket, and leaves it blocking.
func fill(t *testing.T, fd int) {
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); len(b) > 0; {
		if _, err := unix.Write(fd, b); err != nil {
			b = b[:len(b)/8*4]
		}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
}

// resizable is a disk whose size the test says.
type resizable struct {
	*memdev.Device
	size atomic.Uint64
}

func (d *resizable) Limits() blk.Limits {
	l := d.Device.Limits()
	l.Size = d.size.Load()
	return l
}

// A front end that wants to know is told to read the config space again, and finds the
// new size there. One that reads nothing does not hold anybody up.
func TestResize(t *testing.T) {
	d := &resizable{Device: newDisk()}
	d.size.Store(sectors / 2)
	s, path := serve(t, d, nil)
	f := guest(t, path, true, 0)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	f.mustDo(&message{request: setBackendReqFD}, p[1])
	unix.Close(p[1])
	if _, st := f.read(sectors-8, 512); st != statusIOErr {
		t.Errorf("behind the end: %d", st)
	}
	d.size.Store(sectors)
	s.Changed()
	var b [headerLen]byte
	if n, err := unix.Read(p[0], b[:]); err != nil || n != headerLen || order.Uint32(b[:]) != 2 || order.Uint32(b[4:]) != version || order.Uint32(b[8:]) != 0 {
		t.Errorf("% x, %v", b[:n], err)
	}
	c := f.ask(&message{request: getConfig, config: configPart{data: make([]byte, 8)}}).config.data
	if got := binary.LittleEndian.Uint64(c); got != sectors {
		t.Errorf("%d sectors", got)
	}
	if _, st := f.read(sectors-8, 512); st != statusOK {
		t.Errorf("in the new part: %d", st)
	}
	for range 100_000 {
		s.Changed()
	}
	everyRequest(t, f)
}

// A server that ends answers what is under way before it hangs up.
func TestCloseDrains(t *testing.T) {
	d := &held{elsewhere{Device: newDisk()}, make(chan struct{})}
	begun := make(chan struct{})
	s, path := serve(t, &announcing{d, begun}, nil)
	f := guest(t, path, true, 0)
	f.add(&ioreq{op: typeIn, in: 512})
	f.publish()
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	close(d.open)
	if r := f.wait(); r.status != statusOK {
		t.Errorf("status %d", r.status)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	f.hungUp()
}

// announcing says when it has got a bio.
type announcing struct {
	*held
	begun chan struct{}
}

func (d *announcing) Submit(b *blk.Bio) {
	d.held.Submit(b)
	close(d.begun)
}

// Who tells by an eventfd that the front end has filled is let go.
func TestUnblock(t *testing.T) {
	fd := must[int](t)(unix.Eventfd(0, unix.EFD_CLOEXEC))
	defer unix.Close(fd)
	full := order.AppendUint64(nil, 1<<64-2)
	if _, err := unix.Write(fd, full); err != nil {
		t.Fatal(err)
	}
	told := make(chan bool)
	go func() {
		unix.Write(fd, one[:]) // after poll has said that there is room
		close(told)
	}()
	notifier{fd: fd}.unblock()
	<-told
}

// Letting a caller go does not take a notification from the front end.
func TestUnblockNotifies(t *testing.T) {
	fd := must[int](t)(unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK))
	defer unix.Close(fd)
	n := notifier{fd: fd}
	n.tell()
	n.unblock()
	var b [8]byte
	if _, err := unix.Read(fd, b[:]); err != nil {
		t.Errorf("the notification is lost: %v", err)
	}
}

func TestCutLastDoesNotAllocate(t *testing.T) {
	p := make([]byte, 8)
	bufs := make([][]byte, 1)
	if n := testing.AllocsPerRun(100, func() {
		bufs[0] = p
		if last, rest := cutLast(bufs); len(last) != 1 || len(rest) != 1 {
			t.Error(last, rest)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
