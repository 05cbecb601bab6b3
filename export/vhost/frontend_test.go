//go:build linux

package vhost

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/export"
	"udm/export/internal/virtq"
)

// front is a front end with a guest in it: the other side of everything.
type front struct {
	t    testing.TB
	c    *net.UnixConn
	fd   int    // guest memory
	mem  []byte // its mapping
	call int
	kick int

	packed bool   // uses packed rings
	base   uint32 // position that it gives to the next server
	d      virtq.Driver
	sent   map[uint16]*ioreq

	out, in []virtq.Buf // of add
}

const (
	guestAt  = 0x100000000
	userAt   = 0x7e0000000000
	memLen   = 4 << 20
	ringSize = 128

	availOff = 16 * ringSize
	usedOff  = 4096
	tableOff = 64 << 10 // indirect tables
	headOff  = 256 << 10
	dataOff  = 1 << 20
	slotLen  = 16 << 10 // data of a request
)

// serve starts a server of a device and returns the path of its socket.
func serve(t testing.TB, d blk.Device, more func(*Config, *export.Export)) (*Server, string) {
	x := export.Export{Info: export.Info{Name: "d"}, Device: export.Check(d)}
	cfg := Config{Name: "d", Queues: 2, Serial: "serial-of-20-bytes-!"}
	if more != nil {
		more(&cfg, &x)
	}
	cfg.Exports = export.Fixed{x}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; err != ErrClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, path
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// connect makes a front end whose memory can be sealed, or not.
func connect(t testing.TB, path string, sealable bool) *front {
	f := &front{t: t, kick: -1, call: -1, base: 12345, sent: make(map[uint16]*ioreq)}
	f.dial(path)
	flags := unix.MFD_CLOEXEC
	if sealable {
		flags |= unix.MFD_ALLOW_SEALING
	}
	f.fd = must[int](t)(unix.MemfdCreate("guest", flags))
	if err := unix.Ftruncate(f.fd, memLen); err != nil {
		t.Fatal(err)
	}
	f.mem = must[[]byte](t)(unix.Mmap(f.fd, 0, memLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	t.Cleanup(f.close)
	return f
}

// dial connects to a server that may still have another front end.
func (f *front) dial(path string) {
	if f.c != nil {
		f.c.Close()
	}
	for f.c = dial(f.t, path); !f.taken(); f.c = dial(f.t, path) {
		f.c.Close()
	}
}

func dial(t testing.TB, path string) *net.UnixConn {
	return must[*net.UnixConn](t)(net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}))
}

// taken reports whether the server has no other front end any more.
func (f *front) taken() bool {
	if _, err := f.c.Write(encode(&message{request: getFeatures, flags: version}, empty)); err != nil {
		return false
	}
	_, err := f.receive()
	return err == nil
}

func (f *front) close() {
	f.c.Close()
	for _, fd := range []*int{&f.fd, &f.kick, &f.call} {
		closeFD(fd)
	}
	if f.mem != nil {
		unix.Munmap(f.mem)
	}
	f.mem = nil
}

func (f *front) send(m *message, files ...int) {
	f.t.Helper()
	m.flags |= version
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	if _, _, err := f.c.WriteMsgUnix(encode(m, kinds[m.request].in), oob, nil); err != nil {
		f.t.Fatal(err)
	}
}

// ask sends a message and reads the answer to it.
func (f *front) ask(m *message, files ...int) *message {
	f.t.Helper()
	f.send(m, files...)
	got, err := f.receive()
	if err != nil {
		f.t.Fatalf("%v: %v", m.request, err)
	}
	if got.request != m.request || got.flags != version|flagReply {
		f.t.Fatalf("%v is answered by %v, flags %#x", m.request, got.request, got.flags)
	}
	return got
}

func (f *front) receive() (*message, error) {
	head := make([]byte, headerLen)
	if _, err := io.ReadFull(f.c, head); err != nil {
		return nil, err
	}
	m := &message{request: request(order.Uint32(head)), flags: order.Uint32(head[4:])}
	payload := make([]byte, order.Uint32(head[8:]))
	if _, err := io.ReadFull(f.c, payload); err != nil {
		return nil, err
	}
	form := kinds[m.request].reply
	if form == nil {
		form = word
	}
	return m, form.decode(payload, m)
}

// acked asks for an acknowledgement, and reports whether it is "done".
func (f *front) acked(m *message, files ...int) bool {
	f.t.Helper()
	m.flags = needReply
	return f.ask(m, files...).value == 0
}

func (f *front) mustDo(m *message, files ...int) {
	f.t.Helper()
	if !f.acked(m, files...) {
		f.t.Fatalf("%v failed", m.request)
	}
}

func (f *front) region() regionDesc { return regionDesc{guestAt, memLen, userAt, 0} }

// negotiate takes what is offered, but for some features.
func (f *front) negotiate(without uint64) {
	f.send(&message{request: setOwner})
	features := f.ask(&message{request: getFeatures}).value &^ without
	if !f.packed {
		features &^= featPacked
	}
	f.send(&message{request: setProtocolFeatures, value: f.ask(&message{request: getProtocolFeatures}).value})
	f.mustDo(&message{request: setFeatures, value: features})
	f.mustDo(&message{request: setMemTable, regions: []regionDesc{f.region()}}, f.fd)
	f.drive(features)
}

// drive makes a driver of ring 0.
func (f *front) drive(features uint64) {
	rings := virtq.Rings{Desc: f.mem, Avail: f.mem[availOff:], Used: f.mem[usedOff:]}
	var err error
	f.d, err = virtq.NewDriver(ringSize, virtq.Features{EventIdx: features&featEventIdx != 0, Indirect: features&featIndirect != 0, Packed: f.packed},
		rings, f.mem[tableOff:tableOff+16*8*ringSize], guestAt+tableOff)
	if err != nil {
		f.t.Fatal(err)
	}
}

// start starts ring 0 from a position on.
func (f *front) start(base uint32) {
	closeFD(&f.kick)
	closeFD(&f.call)
	f.kick = must[int](f.t)(unix.Eventfd(0, unix.EFD_CLOEXEC))
	f.call = must[int](f.t)(unix.Eventfd(0, unix.EFD_CLOEXEC))
	f.mustDo(&message{request: setVringNum, num: ringSize})
	f.mustDo(&message{request: setVringBase, num: base})
	f.mustDo(&message{request: setVringAddr, addr: ringAddr{desc: userAt, used: userAt + usedOff, avail: userAt + availOff}})
	f.mustDo(&message{request: setVringKick}, f.kick)
	f.mustDo(&message{request: setVringCall}, f.call)
	f.mustDo(&message{request: setVringEnable, num: 1})
}

// guest is a front end that is ready.
func guest(t testing.TB, path string, sealable bool, without uint64) *front {
	f := connect(t, path, sealable)
	f.negotiate(without)
	f.start(0)
	return f
}

// packedGuest is a guest with packed rings.
func packedGuest(t testing.TB, path string, sealable bool, without uint64) *front {
	f := connect(t, path, sealable)
	f.packed = true
	f.negotiate(without)
	f.start(0)
	return f
}

// ioreq is a request of the guest, in a slot of its memory.
type ioreq struct {
	slot   int
	op     uint32
	sector uint64
	out    int // bytes of the slot that the device reads
	in     int // that it writes
	status byte
	len    uint32
}

func (f *front) data(slot, n int) []byte { return f.mem[dataOff+slot*slotLen:][:n] }

// add makes a request available, its data in several pieces.
func (f *front) add(r *ioreq) {
	h := headOff + 32*r.slot
	binary.LittleEndian.PutUint32(f.mem[h:], r.op)
	binary.LittleEndian.PutUint64(f.mem[h+8:], r.sector)
	f.mem[h+16] = 0xff
	at := guestAt + dataOff + uint64(r.slot*slotLen)
	f.out = pieces(append(f.out[:0], virtq.Buf{Addr: guestAt + uint64(h), Len: 16}), at, r.out)
	f.in = append(pieces(f.in[:0], at, r.in), virtq.Buf{Addr: guestAt + uint64(h) + 16, Len: 1})
	head, ok := f.d.Add(f.out, f.in)
	if !ok {
		f.t.Fatal("the ring is full")
	}
	f.sent[head] = r
}

// pieces adds a buffer to a list, in two pieces if it is long.
func pieces(list []virtq.Buf, at uint64, n int) []virtq.Buf {
	if n > 1000 {
		list, at, n = append(list, virtq.Buf{Addr: at, Len: 1000}), at+1000, n-1000
	}
	if n > 0 {
		list = append(list, virtq.Buf{Addr: at, Len: uint32(n)})
	}
	return list
}

func (f *front) publish() {
	if f.d.Publish() {
		unix.Write(f.kick, one[:])
	}
}

// wait waits for a request to come back.
func (f *front) wait() *ioreq {
	for {
		head, n, ok := f.d.Reap()
		if ok {
			r := f.sent[head]
			if r == nil {
				f.t.Fatalf("head %d came back twice", head)
			}
			delete(f.sent, head)
			r.len, r.status = n, f.mem[headOff+32*r.slot+16]
			return r
		}
		if f.d.Park() {
			var b [8]byte
			unix.Read(f.call, b[:])
		}
	}
}

// do runs one request.
func (f *front) do(r *ioreq) *ioreq {
	f.add(r)
	f.publish()
	return f.wait()
}

func (f *front) write(sector uint64, p []byte) byte {
	copy(f.data(0, len(p)), p)
	return f.do(&ioreq{op: typeOut, sector: sector, out: len(p)}).status
}

func (f *front) read(sector uint64, n int) ([]byte, byte) {
	clear(f.data(0, n))
	r := f.do(&ioreq{op: typeIn, sector: sector, in: n})
	return append([]byte(nil), f.data(0, n)...), r.status
}

// hungUp waits until the server has ended the connection.
func (f *front) hungUp() {
	if m, err := f.receive(); err == nil {
		f.t.Fatalf("%v instead of the end", m.request)
	}
}

// openFiles counts the file descriptors of this program.
func openFiles(t testing.TB) int {
	return len(must[[]os.DirEntry](t)(os.ReadDir("/proc/self/fd")))
}
