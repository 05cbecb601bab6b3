package udmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/env"
	"udm/export"
)

func TestDisk(t *testing.T) {
	d := New(t, 1<<20)
	p := bytes.Repeat([]byte("udm!"), 1000)
	if _, err := d.WriteAt(p, 777); err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(io.NewSectionReader(d, 777, int64(len(p))), p); err != nil {
		t.Fatal(err)
	}
	if d.Size() != 1<<20 {
		t.Fatalf("size %d", d.Size())
	}
}

func TestPowerCut(t *testing.T) {
	d := New(t, 1<<20)
	d.WriteAt([]byte{1}, 0)
	d.Sync()
	lost := 0
	for seed := range uint64(100) {
		d.WriteAt([]byte{2}, 0)
		d.WriteAt([]byte{3}, 4096)
		var p [1]byte
		after := d.After(seed)
		after.ReadAt(p[:], 0)
		if p[0] != 1 && p[0] != 2 {
			t.Fatalf("seed %d left %d", seed, p[0])
		}
		lost += int(2 - p[0])
	}
	if lost == 0 || lost == 100 {
		t.Fatalf("of 100 power cuts %d lost the write", lost)
	}
	d.Sync()
	after := d.PowerCut(1)
	p := make([]byte, 1)
	if _, err := after.ReadAt(p, 4096); err != nil || p[0] != 3 {
		t.Fatalf("what was synced is %d, %v", p[0], err)
	}
	if _, err := d.WriteAt(p, 0); err == nil {
		t.Fatal("a disk without power takes writes")
	}
}

func TestBreak(t *testing.T) {
	d := New(t, 1<<20)
	d.Break(Fault{Ops: []blk.Op{blk.Flush}, Count: 1, Status: blk.IOErr})
	if err := d.Sync(); !errors.Is(err, blk.IOErr) {
		t.Fatalf("got %v", err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestPath(t *testing.T) {
	d := New(t, 1<<20)
	f, err := os.OpenFile(d.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("hello"), 100); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 5)
	if _, err := d.ReadAt(p, 100); err != nil || string(p) != "hello" {
		t.Fatalf("%q, %v", p, err)
	}
}

func TestURI(t *testing.T) {
	d := New(t, 1<<20)
	if _, err := d.WriteAt([]byte("hello"), 512); err != nil {
		t.Fatal(err)
	}
	socket, ok := strings.CutPrefix(d.URI(), "nbd+unix:///disk?socket=")
	if !ok || d.URI() != "nbd+unix:///disk?socket="+socket {
		t.Fatal(d.URI())
	}
	nc, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := nbdclient.New(nc, nbdclient.Options{Export: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 512)
	if err := blk.ReadSectors(env.Real(), c, p, 1); err != nil || !bytes.HasPrefix(p, []byte("hello")) {
		t.Fatalf("%q, %v", p[:5], err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPathWithoutFUSE(t *testing.T) {
	defer func() { mount = mountAt }()
	mount = func(export.Fixed, string) (func() error, error) { return nil, errors.New("no /dev/fuse") }
	if !fails(t, func(t testing.TB) { New(t, 1<<20).Path() }) {
		t.Fatal("a test goes on without its file")
	}
}

// record is a 512-byte log record: length of what follows, checksum, number.
func record(n uint32) []byte {
	p := make([]byte, 1024) // two sectors, so that it can tear
	binary.LittleEndian.PutUint32(p[4:], n)
	for i := 8; i < len(p); i++ {
		p[i] = byte(n)
	}
	binary.LittleEndian.PutUint32(p, crc32.ChecksumIEEE(p[4:]))
	return p
}

// scan counts the records of a log up to the first that is not whole.
func scan(d *Disk, checked bool) (n uint32) {
	p := make([]byte, 1024)
	for {
		if _, err := d.ReadAt(p, int64(n)*1024); err != nil {
			return n
		}
		whole := crc32.ChecksumIEEE(p[4:]) == binary.LittleEndian.Uint32(p)
		if !checked {
			whole = p[4] != 0
		}
		if binary.LittleEndian.Uint32(p[4:]) != n+1 || !whole {
			return n
		}
		n++
	}
}

// appendLog appends records, syncing each unless it is forgetful.
func appendLog(d *Disk, forgetful bool) {
	for n := uint32(1); n <= 20; n++ {
		d.WriteAt(record(n), int64(n-1)*1024)
		if !forgetful {
			d.Sync()
		}
		d.Mark(int(n))
	}
}

func keeps(d *Disk, m Moment) error {
	if n := scan(d, true); int(n) < m.Mark {
		return errors.New("a promised record is lost")
	}
	return nil
}

func TestCrashesPassASoundLog(t *testing.T) {
	if n := Crashes(t, Plan{Size: 64 << 10}, func(d *Disk) { appendLog(d, false) }, keeps); n != 120 {
		t.Fatalf("%d states, want 3 after each of 40 events", n)
	}
}

// failing catches the failure of a test.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Fatalf(string, ...any) { f.failed = true; panic(f) }

// fails reports whether fn fails the test that it is given.
func fails(t *testing.T, fn func(testing.TB)) bool {
	f := &failing{TB: t}
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(f) {
				panic(r)
			}
		}()
		fn(f)
	}()
	return f.failed
}

func TestCrashesFindAMissingSync(t *testing.T) {
	if !fails(t, func(t testing.TB) {
		Crashes(t, Plan{Size: 64 << 10}, func(d *Disk) { appendLog(d, true) }, keeps)
	}) {
		t.Fatal("a log that never syncs passes")
	}
}

// A reader that trusts a record's first sector believes a torn one.
func TestCrashesFindTornRecords(t *testing.T) {
	if !fails(t, func(t testing.TB) {
		Crashes(t, Plan{Size: 64 << 10, Seeds: 20}, func(d *Disk) { appendLog(d, false) }, func(d *Disk, m Moment) error {
			if scan(d, false) != scan(d, true) {
				return errors.New("a torn record is taken for whole")
			}
			return nil
		})
	}) {
		t.Fatal("torn records are never seen")
	}
}
