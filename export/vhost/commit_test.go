//go:build linux

package vhost

import (
	"bytes"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/export"
)

// forgetful is a disk that keeps metadata in memory until a flush. Flushes end elsewhere,
// with a status that the test sends.
type forgetful struct {
	*memdev.Device
	writes, committed atomic.Int32
	flushed           chan chan blk.Status
}

func (d *forgetful) uncommitted() bool { return d.writes.Load() > d.committed.Load() }

func (d *forgetful) Submit(b *blk.Bio) {
	if b.Op != blk.Flush {
		if b.Op.IsWrite() {
			d.writes.Add(1)
		}
		d.Device.Submit(b)
		return
	}
	answer, covered := make(chan blk.Status), d.writes.Load()
	go func() {
		d.flushed <- answer
		st := <-answer
		if st == blk.OK {
			d.committed.Store(covered)
		}
		b.Complete(st)
	}()
}

func serveForgetful(t *testing.T, tune func(*blk.Limits)) (*forgetful, *front) {
	d := &forgetful{Device: memdev.New(sectors, memdev.Volatile, memdev.Tune(tune)), flushed: make(chan chan blk.Status)}
	_, path := serve(t, d, func(_ *Config, x *export.Export) { x.Uncommitted = d.uncommitted })
	return d, guest(t, path, true, 0)
}

// On a disk that would lose them with this process, writes are answered after a flush, which
// all share that have ended. Reads are not.
func TestWritesAwaitTheirCommit(t *testing.T) {
	d, f := serveForgetful(t, func(l *blk.Limits) { l.ProcessMemory = false })
	addWrites := func(first, n int) {
		for s := range n {
			f.add(&ioreq{slot: first + s, op: typeOut, sector: uint64(8 * s), out: 512})
		}
		f.publish()
	}
	read := func() {
		if r := f.do(&ioreq{slot: 15, op: typeIn, in: 512}); r.op != typeIn {
			t.Fatalf("request %d is answered before the flush", r.slot)
		}
	}
	addWrites(0, 8)
	read() // or nobody would wait for the flush
	first := <-d.flushed
	read()
	addWrites(8, 3)
	first <- blk.OK
	second := <-d.flushed
	for range 8 {
		if r := f.wait(); r.slot >= 8 || r.status != statusOK {
			t.Errorf("%+v after the first flush", r)
		}
	}
	second <- blk.IOErr
	for range 3 {
		if r := f.wait(); r.status != statusIOErr {
			t.Errorf("%+v after a flush that failed", r)
		}
	}
	if len(f.sent) > 0 {
		t.Errorf("%d requests are left", len(f.sent))
	}
}

// Writes do not wait where nothing is to be committed, or a flush saves nothing.
func TestWritesThatNeedNoCommit(t *testing.T) {
	d, f := serveForgetful(t, func(l *blk.Limits) { l.ProcessMemory = true })
	if st := f.write(0, make([]byte, 512)); st != statusOK || !d.uncommitted() {
		t.Errorf("in memory: status %d", st)
	}
	x := export.Export{Device: export.Check(memdev.New(sectors, memdev.Tune(func(l *blk.Limits) { l.ProcessMemory = false })))}
	if !x.NeedsFlush() {
		t.Error("without Uncommitted no flush is needed")
	}
	if x.Uncommitted = func() bool { return false }; x.NeedsFlush() {
		t.Error("a flush is needed although all is committed")
	}
}

// A server that is killed keeps what it has answered on a thin volume, whose mappings are
// in its memory for a while.
func TestKilledOverThin(t *testing.T) {
	k := &killable{file: filepath.Join(t.TempDir(), "disk"+thinSuffix)}
	for _, part := range []string{"", ".data"} {
		if err := os.WriteFile(k.file+part, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(k.file+part, 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	k.start(t)
	defer func() { k.kill() }()
	f := connect(t, k.file+".sock", true)
	f.negotiate(0)
	d, notes := f.inflight(inflightDesc{rings: 2, num: ringSize})
	defer unix.Close(notes)
	f.mustDo(&message{request: setInflightFD, inflight: d}, notes)
	f.start(0)
	const block, perRound = 128, 5
	for round := range 4 {
		for i := range perRound {
			sector := uint64((round*perRound + i) * block)
			if st := f.write(sector, blktest.Pattern(sector, 8, 1)); st != statusOK {
				t.Fatalf("write at %d: status %d", sector, st)
			}
		}
		k.kill()
		k.start(t)
		f.again(k.file+".sock", d, notes)
	}
	for n := range 4 * perRound {
		sector := uint64(n * block)
		if got, st := f.read(sector, 4096); st != statusOK || !bytes.Equal(got, blktest.Pattern(sector, 8, 1)) {
			t.Errorf("block %d is lost", n)
		}
	}
}
