package ublk

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/export"
	"udm/internal/uring"
)

const (
	testDepth = 32
	testBytes = 64 << 10 // of the largest request
)

// heldDevice ends bios when it is told.
type heldDevice struct {
	bios []*blk.Bio
	data []byte
}

func (d *heldDevice) Submit(b *blk.Bio) { d.bios = append(d.bios, b) }
func (d *heldDevice) Limits() blk.Limits {
	return blk.Limits{Size: uint64(len(d.data)) / blk.SectorSize, LogicalBlock: 512, PhysicalBlock: 512, MinIO: 512}
}
func (*heldDevice) Close() error   { return nil }
func (*heldDevice) String() string { return "held" }

// end ends the n bios that were submitted first, and returns their sectors.
func (d *heldDevice) end(n int) (sectors []uint64) {
	for _, b := range d.bios[:n] {
		at := d.data[b.Sector*blk.SectorSize:][:b.Bytes()]
		if b.Op == blk.Write {
			b.CopyOut(at)
		} else {
			b.CopyIn(at)
		}
		sectors = append(sectors, b.Sector)
		b.Complete(blk.OK)
	}
	d.bios = slices.Delete(d.bios, 0, n)
	return sectors
}

// queueOn returns a queue whose /dev/ublkcN is a file: the data of requests are at the driver's
// offsets there, and nobody takes the commands.
func queueOn(t *testing.T, d blk.Device) *queue {
	t.Helper()
	runtime.LockOSThread() // the ring's; not unlocked, like in run
	file, err := os.Create(filepath.Join(t.TempDir(), "ublkc"))
	if err == nil {
		err = file.Truncate(dataOffset + testDepth<<tagShift)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		log: slog.New(slog.DiscardHandler), export: &export.Export{Device: export.Check(d)}, fd: int(file.Fd()),
		info: Info{Depth: testDepth, MaxBytes: testBytes, Flags: flagUserCopy},
	}
	q := newQueue(s, 0)
	s.queues = []*queue{q}
	if q.failed != nil {
		t.Fatal(q.failed)
	}
	if q.ring, err = uring.New(uring.Options{Entries: 4 * testDepth}); err != nil {
		t.Fatal(err)
	}
	q.descs = make([]byte, testDepth*descSize)
	memory := make([]byte, buffersLen(testDepth, testBytes, true))
	q.buffers = newBuffers(memory, testDepth, testBytes, true)
	t.Cleanup(func() {
		q.ring.Close()
		q.waker.Close()
		file.Close()
	})
	return q
}

// arrive lets a request of the driver arrive in a tag.
func (q *queue) arrive(tag int, op uint32, sector, bytes int) {
	d := q.descs[tag*descSize:]
	ne.PutUint32(d, op)
	ne.PutUint32(d[4:], uint32(bytes/blk.SectorSize))
	ne.PutUint64(d[8:], uint64(sector))
	q.completed(uring.Completion{User: uint64(tag)})
}

// pass does what a pass of serve does between two system calls.
func (q *queue) pass() {
	q.answerLate()
	q.startWaiting()
}

const testRead, testWrite = 0, 1

// The data of each request come from its place in /dev/ublkcN, and go there. Long requests wait
// for a buffer in their order; short ones do not wait.
func TestQueueCopies(t *testing.T) {
	d := &heldDevice{data: make([]byte, testDepth*testBytes)}
	q := queueOn(t, d)
	const long = testDepth - 1
	at := func(tag int) int64 { return dataOffset + int64(tag)<<tagShift }
	pattern := func(tag int) []byte { return bytes.Repeat([]byte{byte(tag + 1)}, testBytes) }
	var got, want []uint64
	for tag := range long {
		if tag == long-1 { // a buffer is free, but others wait
			got = d.end(1)
			q.answerLate()
		}
		if _, err := unix.Pwrite(q.server.fd, pattern(tag), at(tag)); err != nil {
			t.Fatal(err)
		}
		want = append(want, uint64(tag*testBytes/blk.SectorSize))
		q.arrive(tag, testWrite, int(want[tag]), testBytes)
	}
	if len(d.bios) != sharedBuffers-1 || q.held != long-1 {
		t.Fatalf("%d requests have begun and %d are held, want %d and %d", len(d.bios), q.held, sharedBuffers-1, long-1)
	}
	q.arrive(long, testRead, 0, ownBytes)
	if len(d.bios) != sharedBuffers {
		t.Fatal("a short request waits")
	}
	for len(d.bios) > 0 {
		got = append(got, d.end(min(3, len(d.bios)))...)
		q.pass()
	}
	got = slices.Delete(got, sharedBuffers, sharedBuffers+1) // the short one
	if !slices.Equal(got, want) || q.held != 0 || len(q.shared) != sharedBuffers {
		t.Errorf("sectors %d, want %d; %d requests are held, %d buffers free", got, want, q.held, len(q.shared))
	}
	for tag := range long {
		if !bytes.Equal(d.data[tag*testBytes:][:testBytes], pattern(tag)) {
			t.Errorf("the write of tag %d has other data", tag)
		}
	}
	for tag := range long { // each reads what another has written
		q.arrive(tag, testRead, (long-1-tag)*testBytes/blk.SectorSize, testBytes)
	}
	for len(d.bios) > 0 {
		d.end(1)
		q.pass()
	}
	p := make([]byte, testBytes)
	for tag := range long {
		if _, err := unix.Pread(q.server.fd, p, at(tag)); err != nil || !bytes.Equal(p, pattern(long-1-tag)) {
			t.Errorf("the read of tag %d has other data: %v", tag, err)
		}
	}
}

// A server that leaves does not begin what waits for a buffer: the next server gets it.
func TestQueueLeaves(t *testing.T) {
	d := &heldDevice{data: make([]byte, testDepth*testBytes)}
	q := queueOn(t, d)
	for tag := range testDepth {
		q.arrive(tag, testWrite, 0, testBytes)
	}
	q.leave()
	d.end(1)
	q.pass()
	if q.held != sharedBuffers-1 || len(d.bios) != q.held {
		t.Errorf("%d requests are held and %d under way, want %d", q.held, len(d.bios), sharedBuffers-1)
	}
}

// A server that leaves does not answer what ends then, nor begins what arrives: whoever gets no answer
// sends nothing while the driver ends it. The file in place of the driver refuses each answer.
func TestNoAnswersWhileLeaving(t *testing.T) {
	for _, leaving := range []bool{false, true} {
		d := &heldDevice{data: make([]byte, testBytes)}
		q := queueOn(t, d)
		q.server.Up()
		q.arrive(0, testWrite, 0, 512)
		if leaving {
			q.leave()
		}
		d.end(1)
		q.pass()
		q.arrive(1, testWrite, 0, 512)
		must(q.ring.Enter(0))
		q.reap()
		want := 1
		if leaving {
			want = 0
		}
		if q.gone != want || len(d.bios) != want || q.held != want {
			t.Errorf("leaving %v: %d answers, %d requests begun, %d held, want %d of each", leaving, q.gone, len(d.bios), q.held, want)
		}
	}
}

// A server leaves if the kernel refuses a command, or aborts one before the server is up: a request for
// its tag would wait for ever. It goes on until its last tag is aborted if the device is stopped later.
func TestLostSlots(t *testing.T) {
	abort, refuse := resultAbort, -int32(unix.EBUSY)
	for _, c := range []struct {
		up     bool
		result int32
		leaves bool
	}{{false, abort, true}, {false, refuse, true}, {true, abort, false}, {true, refuse, true}} {
		q := queueOn(t, &heldDevice{data: make([]byte, testBytes)})
		if c.up {
			q.server.Up()
		}
		q.completed(uring.Completion{User: 1, Result: c.result})
		if q.pass(); q.leaving != c.leaves || q.gone != 1 {
			t.Errorf("up %v, result %d: leaving %v, %d tags are gone, want %v and 1", c.up, c.result, q.leaving, q.gone, c.leaves)
		}
	}
}

// No queue sends a command if another one cannot be opened. The file in place of the driver refuses all.
func TestQueuesOpenTogether(t *testing.T) {
	for _, failed := range []error{nil, unix.ENOMEM} {
		s := queueOn(t, &heldDevice{data: make([]byte, testBytes)}).server
		s.queues = []*queue{newQueue(s, 0), newQueue(s, 0)}
		s.queues[1].failed = failed
		var opened, ready, running sync.WaitGroup
		opened.Add(2)
		ready.Add(2)
		s.serving.Add(2)
		for _, q := range s.queues {
			running.Go(func() { q.run(&opened, ready.Done) })
		}
		running.Wait()
		if refused := s.queues[0].gone + s.queues[1].gone; (refused > 0) != (failed == nil) {
			t.Errorf("with %v of a queue, %d commands were refused", failed, refused)
		}
	}
}

// Without copies of the server, each tag has a buffer for the largest request.
func TestBuffers(t *testing.T) {
	for _, c := range []struct {
		copies  bool
		maximum int
		want    int
	}{{false, 1 << 19, 64 << 19}, {true, 1 << 19, 64*ownBytes + sharedBuffers<<19}, {true, 4096, 64 * 4096}} {
		n := buffersLen(64, c.maximum, c.copies)
		b := newBuffers(make([]byte, n), 64, c.maximum, c.copies)
		if n != c.want || len(b.take(63, c.maximum)) != c.maximum {
			t.Errorf("copies %v, at most %d bytes: %d bytes, want %d", c.copies, c.maximum, n, c.want)
		}
	}
}
