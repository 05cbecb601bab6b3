//go:build linux

// Package driver is a front end of vhost-user-blk and the guest's driver in one, without a
// guest: for benchmarks and tests, and for programs that want a disk of another process
// without a copy through a socket. Linux only.
//
// [Open] shares a memfd with the server and starts the rings in it. Each [Queue] has slots,
// one for a request with its block of data, and is used by one goroutine. A disk that reconnects
// has a goroutine that waits for the end of the connection.
package driver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// Op is the type of a request.
type Op uint32

const (
	Read  Op = 0
	Write Op = 1
	Flush Op = 4
)

// Options describe the rings of a disk.
type Options struct {
	Queues int // number of rings
	Slots  int // requests in flight in each, at most 1024
	Block  int // bytes of a request; a multiple of 512
	Packed bool
	Poll   bool // look for answers all the time instead of waiting
	// Reconnects has the server record the requests in flight, and connects to the next one
	// when it ends: the requests wait, and none is lost.
	Reconnects bool
}

// Disk is a connection to a server. Close it when no queue is in use.
type Disk struct {
	Queues []*Queue
	o      Options
	path   string
	fd     int
	mem    []byte
	record record

	mu     sync.Mutex
	conn   *net.UnixConn // guarded by mu once the disk is open; changed by its goroutine
	closed bool          // guarded by mu
	over   chan struct{} // closed when the goroutine has ended; nil: there is none
}

// Queue is a ring with its slots.
type Queue struct {
	virtq.Driver
	disk       *Disk
	o          Options
	base       int // of its memory
	kick, call int
	slots      map[uint16]int // by head
}

// The memory of a queue: the ring, a table of three descriptors and a header with a status
// for each slot, and the data.
const (
	availOff = 32 << 10
	usedOff  = 48 << 10
	tableOff = 64 << 10
	tableLen = 48
	headOff  = tableOff + 2048*tableLen
	headLen  = 32
	dataOff  = headOff + 2048*headLen

	guestAt = 1 << 32
	userAt  = 1 << 40
)

func (o *Options) size() (n int) {
	for n = 16; n < 2*o.Slots; n *= 2 {
	}
	return n
}

func (o *Options) length() int { return (dataOff + o.Slots*o.Block + 4095) &^ 4095 }

// Open connects to a server and starts the rings.
func Open(path string, o Options) (d *Disk, err error) {
	if o.Queues < 1 || o.Slots < 1 || o.Slots > 1024 || o.Block < 512 || o.Block%512 != 0 {
		return nil, fmt.Errorf("vhost driver: invalid options %+v", o)
	}
	d = &Disk{o: o, path: path, fd: -1, record: record{fd: -1}}
	defer func() {
		if err != nil {
			d.Close()
			d = nil
		}
	}()
	if d.conn, err = dial(path); err != nil {
		return d, err
	}
	if d.fd, err = unix.MemfdCreate("udm-driver", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
		return d, err
	}
	n := o.Queues * o.length()
	if err = unix.Ftruncate(d.fd, int64(n)); err != nil {
		return d, err
	}
	if d.mem, err = unix.Mmap(d.fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return d, err
	}
	f, err := d.negotiate(o)
	if err == nil && o.Reconnects {
		err = d.getRecord()
	}
	for i := range o.Queues {
		if err == nil {
			err = d.make(i, o, f)
		}
	}
	if err == nil {
		err = d.start()
	}
	if err == nil && o.Reconnects {
		d.over = make(chan struct{})
		go d.reconnect()
	}
	return d, err
}

func dial(path string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
}

// start starts the rings where they are.
func (d *Disk) start() error {
	if d.o.Reconnects {
		if err := d.setRecord(); err != nil {
			return err
		}
	}
	for i, q := range d.Queues {
		if err := q.start(i); err != nil {
			return err
		}
	}
	return nil
}

// redial is how often a disk that reconnects looks for the next server. No event tells that
// another process listens at a path.
const redial = 5 * time.Millisecond

// reconnect connects to the next server when one has ended, until Close.
func (d *Disk) reconnect() {
	defer close(d.over)
	for d.end() {
		c, err := dial(d.path)
		if err == nil && d.use(c) {
			if _, err = d.negotiate(d.o); err == nil {
				err = d.start()
			}
		}
		if err != nil {
			time.Sleep(redial)
		}
	}
}

// end waits for the end of the connection, and closes it; false: the disk is closed.
func (d *Disk) end() bool {
	_, _ = io.Copy(io.Discard, d.conn) // after an error of start, what the server answers
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn.Close()
	return !d.closed
}

// use makes c the connection, unless the disk is closed.
func (d *Disk) use(c *net.UnixConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		c.Close()
		return false
	}
	d.conn = c
	return true
}

// Close disconnects from the server.
func (d *Disk) Close() {
	d.mu.Lock()
	d.closed = true
	if d.conn != nil {
		d.conn.Close()
	}
	d.mu.Unlock()
	if d.over != nil {
		<-d.over
	}
	for _, q := range d.Queues {
		_, _ = unix.Close(q.kick), unix.Close(q.call)
	}
	for _, fd := range []int{d.fd, d.record.fd} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	if d.mem != nil {
		_ = unix.Munmap(d.mem)
	}
}

// make makes a queue, and its ring in memory.
func (d *Disk) make(i int, o Options, f virtq.Features) error {
	q := &Queue{disk: d, o: o, base: i * o.length(), kick: -1, call: -1, slots: make(map[uint16]int)}
	d.Queues = append(d.Queues, q)
	m := d.mem[q.base:][:o.length()]
	size := o.size()
	var err error
	if q.Driver, err = virtq.NewDriver(size, f, virtq.Rings{Desc: m, Avail: m[availOff:], Used: m[usedOff:]}, m[tableOff:][:tableLen*size], q.guest(tableOff)); err != nil {
		return err
	}
	if q.kick, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return err
	}
	q.call, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	return err
}

// start has the server serve the ring, from its beginning unless the record says otherwise.
func (q *Queue) start(i int) error {
	d, size, base := q.disk, q.o.size(), uint32(0)
	if q.o.Packed {
		base = 0x80008000
	}
	at := uint64(userAt + q.base)
	return errors.Join(
		d.tell(setVringNum, words(i, size)),
		d.tell(setVringBase, words(i, int(base))),
		d.tell(setVringAddr, append(words(i, 0), longs(at, at+usedOff, at+availOff, 0)...)),
		d.tell(setVringKick, longs(uint64(i)), q.kick),
		d.tell(setVringCall, longs(uint64(i)), q.call),
		d.tell(setVringEnable, words(i, 1)),
	)
}

func (q *Queue) guest(off int) uint64 { return guestAt + uint64(q.base+off) }

// Data is the block of a slot.
func (q *Queue) Data(slot int) []byte {
	return q.disk.mem[q.base+dataOff+slot*q.o.Block:][:q.o.Block]
}

// Submit makes a request of a free slot. The server sees it after Kick.
func (q *Queue) Submit(slot int, op Op, sector uint64) error {
	h := q.base + headOff + slot*headLen
	binary.LittleEndian.PutUint32(q.disk.mem[h:], uint32(op))
	binary.LittleEndian.PutUint64(q.disk.mem[h+8:], sector)
	out := [2]virtq.Buf{{Addr: q.guest(headOff + slot*headLen), Len: 16}}
	data := virtq.Buf{Addr: q.guest(dataOff + slot*q.o.Block), Len: uint32(q.o.Block)}
	status := virtq.Buf{Addr: out[0].Addr + 16, Len: 1}
	in, outs := [2]virtq.Buf{status}, 1
	ins := 1
	switch op {
	case Read:
		in, ins = [2]virtq.Buf{data, status}, 2
	case Write:
		out[1], outs = data, 2
	}
	head, ok := q.Add(out[:outs], in[:ins])
	if !ok {
		return errors.New("vhost driver: the ring is full")
	}
	q.slots[head] = slot
	return nil
}

// Kick shows the requests to the server.
func (q *Queue) Kick() {
	if q.Publish() {
		one := [8]byte{1}
		_, _ = unix.Write(q.kick, one[:])
	}
}

// Wait waits for an answer, and returns its slot and whether the request succeeded.
func (q *Queue) Wait() (slot int, ok bool) {
	for {
		if head, _, ok := q.Reap(); ok {
			slot = q.slots[head]
			return slot, q.disk.mem[q.base+headOff+slot*headLen+16] == 0
		}
		if !q.o.Poll && q.Park() {
			var b [8]byte
			_, _ = unix.Read(q.call, b[:])
		}
	}
}
