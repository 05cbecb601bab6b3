//go:build linux

package vhost

import (
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/memdev"
)

// serveSeen is a server of a disk, which passes on the flags of its writes.
func serveSeen(t *testing.T) (string, chan blk.Flags) {
	seen := make(chan blk.Flags, 8)
	d := &plain{memdev.New(sectors, memdev.Volatile, memdev.Tune(func(l *blk.Limits) {
		l.FUA, l.ProcessCache, l.ProcessMemory = true, false, false
	})), func(b *blk.Bio) {
		if b.Op.IsWrite() && b.Op != blk.Flush {
			seen <- b.Flags & blk.FUA
		}
	}}
	_, path := serve(t, d, nil)
	return path, seen
}

func (f *front) chooseCache(writeback byte, flags uint32) {
	f.mustDo(&message{request: setConfig, config: configPart{offset: writebackAt, flags: flags, data: []byte{writeback}}})
}

// writesAre checks the flags of a write and of a write-zeroes.
func (f *front) writesAre(seen chan blk.Flags, want blk.Flags) {
	f.t.Helper()
	if st := f.write(0, make([]byte, 512)); st != statusOK || <-seen != want {
		f.t.Errorf("write: status %d, want flags %v", st, want)
	}
	copy(f.data(0, 16), span(8, 8, 0))
	if r := f.do(&ioreq{op: typeWriteZeroes, out: 16}); r.status != statusOK || <-seen != want {
		f.t.Errorf("write-zeroes: status %d, want flags %v", r.status, want)
	}
}

// A guest that chooses write-through has writes that last, and one that chooses write-back
// has the others. Only a reset that the front end asks for takes the choice back.
func TestCacheMode(t *testing.T) {
	path, seen := serveSeen(t)
	f := guest(t, path, true, 0)
	mode := func() byte {
		return f.ask(&message{request: getConfig, config: configPart{offset: writebackAt, data: []byte{9}}}).config.data[0]
	}
	f.writesAre(seen, 0)
	for _, flags := range []uint32{0, 1} {
		f.chooseCache(0, flags)
		if f.writesAre(seen, blk.FUA); mode() != 0 {
			t.Error("the mode is not shown")
		}
		f.chooseCache(1, flags)
		if f.writesAre(seen, 0); mode() != 1 {
			t.Error("the mode is not shown")
		}
	}
	f.chooseCache(0, 0)
	f.mustDo(&message{request: setStatus})
	f.negotiate(0)
	f.start(0)
	f.writesAre(seen, blk.FUA)
	f.mustDo(&message{request: resetDevice})
	f.negotiate(0)
	f.start(0)
	f.writesAre(seen, 0)
	f.close()
	f = guest(t, path, true, featWriteback)
	f.chooseCache(0, 0)
	f.writesAre(seen, 0) // it cannot choose
}

// The next server knows the mode by what is noted beside the requests in flight, and takes
// write-through if nothing is.
func TestCacheModeOfTheNextServer(t *testing.T) {
	path, seen := serveSeen(t)
	next, nextSeen := serveSeen(t)
	for _, c := range []struct {
		noted bool
		mode  byte
		want  blk.Flags
	}{{true, 0, blk.FUA}, {true, 1, 0}, {false, 1, blk.FUA}} {
		f := connect(t, path, true)
		f.negotiate(0)
		d, notes := f.inflight(inflightDesc{rings: 2, num: ringSize})
		f.mustDo(&message{request: setInflightFD, inflight: d}, notes)
		f.start(0)
		f.chooseCache(c.mode, 0)
		f.writesAre(seen, blk.FUA*blk.Flags(1-c.mode))
		if !c.noted {
			unix.Close(notes)
			d, notes = f.inflight(inflightDesc{rings: 2, num: ringSize})
		}
		f.base = f.ask(&message{request: getVringBase}).num
		f.again(next, d, notes)
		f.writesAre(nextSeen, c.want)
		f.close()
		unix.Close(notes)
	}
}

// A status is kept; 0 stops the rings, which can be set up again, as after a reset.
func TestStatus(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	for _, m := range []message{{request: setStatus}, {request: resetDevice}} {
		f.mustDo(&message{request: setStatus, value: 15})
		if got := f.ask(&message{request: getStatus}).value; got != 15 {
			t.Errorf("status %d", got)
		}
		everyRequest(t, f)
		f.mustDo(&m)
		if got := f.ask(&message{request: getStatus}).value; got != 0 {
			t.Errorf("status %d after a reset", got)
		}
		f.negotiate(0)
		f.start(0)
	}
	everyRequest(t, f)
	f.mustDo(&message{request: setProtocolFeatures, value: protoReplyAck})
	for _, m := range []message{{request: setStatus}, {request: resetDevice}} {
		if f.acked(&m) {
			t.Errorf("%v without its feature", m.request)
		}
	}
	everyRequest(t, f)
}

// A guest whose disk was in the memory of another process is refused, and one whose disk is
// still here is not.
func TestDiskInMemory(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	_, next := serve(t, newDisk(), nil)
	f := connect(t, path, true)
	f.negotiate(0)
	d, notes := f.inflight(inflightDesc{rings: 2, num: ringSize})
	defer unix.Close(notes)
	f.mustDo(&message{request: setInflightFD, inflight: d}, notes)
	f.start(0)
	everyRequest(t, f)
	f.again(next, d, notes)
	everyRequest(t, f)
	mem := must[[]byte](t)(unix.Mmap(notes, 0, int(d.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	mem[ringsLen(2, ringSize)]++ // as another process would have it
	unix.Munmap(mem)
	f.dial(path)
	f.send(&message{request: setProtocolFeatures, value: protoReplyAck})
	if f.acked(&message{request: setInflightFD, inflight: d}, notes) {
		t.Error("notes of another process are taken")
	}
	// Without notes, the ring tells that it was in use.
	f.mustDo(&message{request: setFeatures, value: featProtocol | featVersion1 | featEventIdx | featIndirect})
	f.mustDo(&message{request: setMemTable, regions: []regionDesc{f.region()}}, f.fd)
	f.mustDo(&message{request: setVringNum, num: ringSize})
	f.mustDo(&message{request: setVringBase, num: 0})
	f.mustDo(&message{request: setVringAddr, addr: ringAddr{desc: userAt, used: userAt + usedOff, avail: userAt + availOff}})
	f.mustDo(&message{request: setVringKick}, f.kick)
	f.send(&message{request: setVringEnable, num: 1})
	f.hungUp()
	f.close()
	everyRequest(t, guest(t, path, true, 0))
}

// A front end that pauses a guest sets the status to 0 before it asks where the rings stand,
// and goes on from there.
func TestPause(t *testing.T) {
	for name, begin := range kindsOfRings {
		t.Run(name, func(t *testing.T) {
			_, path := serve(t, newDisk(), nil)
			f := begin(t, path, true, 0)
			for range 3 {
				everyRequest(t, f)
				features := f.ask(&message{request: getFeatures}).value
				if !f.packed {
					features &^= featPacked
				}
				f.mustDo(&message{request: setStatus})
				f.mustDo(&message{request: setVringEnable})
				base := f.ask(&message{request: getVringBase}).num
				if base == 0 || base == 0x80008000 {
					t.Fatalf("the ring stands at %#x", base)
				}
				f.mustDo(&message{request: setFeatures, value: features})
				f.start(base)
			}
			everyRequest(t, f)
		})
	}
}

// A ring that begins anew, as with another driver of the guest, takes nothing of its last run for its
// own. A packed one that the driver has filled before it starts looks as if it had been used.
func TestRingBeginsFull(t *testing.T) {
	for name, begin := range kindsOfRings {
		t.Run(name, func(t *testing.T) {
			_, path := serve(t, newDisk(), nil)
			f := begin(t, path, true, featIndirect)
			everyRequest(t, f)
			features := f.ask(&message{request: getFeatures}).value &^ featIndirect
			f.mustDo(&message{request: setVringEnable})
			f.ask(&message{request: getVringBase})
			clear(f.mem[:tableOff])
			f.drive(features)
			n := 0
			for ; 3*n+2 < ringSize; n++ {
				f.add(&ioreq{slot: n, op: typeIn, in: 512})
			}
			f.add(&ioreq{slot: n, op: typeFlush})
			f.publish()
			f.start(0)
			for range n + 1 {
				if r := f.wait(); r.status != statusOK {
					t.Errorf("request %d: %d", r.slot, r.status)
				}
			}
			everyRequest(t, f)
		})
	}
}
