package udm_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"udm"
	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/nbdclient"
	"udm/env"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestOneDevice(t *testing.T) {
	blktest.Leaks(t)
	d := must[*udm.Device](t)(udm.Open(udm.Table(
		udm.Line(0, 1024, "linear", "mem:1M 8"), udm.Line(1024, 1024, "zero", ""))))
	p := bytes.Repeat([]byte("udm!"), 1000)
	if _, err := d.WriteAt(p, 777); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(io.NewSectionReader(d, 777, int64(len(p))), p); err != nil {
		t.Fatal(err)
	}
	if d.Size() != 1<<20 || d.Table() != "0 1024 linear 1:0 8\n1024 1024 zero" || d.Status() != "0 1024 linear\n1024 1024 zero" {
		t.Errorf("%d bytes\n%s\n%s", d.Size(), d.Table(), d.Status())
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.WriteAt(p, 0); !errors.Is(err, blk.Offline) {
		t.Errorf("a write to a closed device: %v", err)
	}
}

func TestConformance(t *testing.T) {
	blktest.TestDevice(t, func(t *testing.T) blk.Device {
		return must[*udm.Device](t)(udm.Open("0 8192 striped 2 128 mem:2M:a 0 mem:2M:b 0"))
	})
}

func TestDevicesStandOnEachOther(t *testing.T) {
	blktest.Leaks(t)
	s := udm.New()
	pool := must[*udm.Device](t)(s.Create("pool", "0 16384 thin-pool mem:4M mem:8M 128 0"))
	must[string](t)(pool.Message("create_thin 0"))
	disk := must[*udm.Device](t)(s.Create("disk", "0 65536 thin /dev/mapper/pool 0"))
	if _, err := disk.WriteAt([]byte{1}, 1<<20); err != nil {
		t.Fatal(err)
	}
	if st := disk.Status(); !strings.HasPrefix(st, "0 65536 thin 128 ") {
		t.Error(st)
	}
	if d, ok := s.Device("disk"); !ok || d != disk {
		t.Error("not found by its name")
	}
	if _, err := s.Create("disk", "0 8 zero"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a second device of a name: %v", err)
	}
	if _, err := s.Create("bad", "0 8 linear /nosuch 0"); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("a table that cannot be loaded: %v", err)
	}
	// The pool goes with what stands on it.
	if err := errors.Join(pool.Close(), disk.Close(), pool.Close()); err != nil {
		t.Error(err)
	}
	if _, ok := s.Device("pool"); ok {
		t.Error("a closed device is found")
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if ds := s.Control().List(); len(ds) != 0 {
		t.Errorf("left: %v", ds)
	}
	if _, err := s.Create("late", "0 8 zero"); !errors.Is(err, blk.Offline) {
		t.Errorf("a device of a closed stack: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	s := udm.New()
	defer s.Close()
	d := must[*udm.Device](t)(s.CreateReadOnly("ro", "0 64 linear mem:64K 0"))
	if _, err := d.WriteAt([]byte{1}, 0); !errors.Is(err, blk.ReadOnly) {
		t.Errorf("got %v", err)
	}
}

func TestServe(t *testing.T) {
	blktest.Leaks(t)
	d := must[*udm.Device](t)(udm.Open("0 2048 linear mem:1M 0"))
	if _, err := d.WriteAt([]byte("hello"), 512); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "nbd")
	if err := d.Stack().ListenNBD(path); err != nil {
		t.Fatal(err)
	}
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	if err := d.Stack().ServeNBD(l); err != nil {
		t.Fatal(err)
	}
	for _, at := range []net.Addr{&net.UnixAddr{Name: path, Net: "unix"}, l.Addr()} {
		nc := must[net.Conn](t)(net.Dial(at.Network(), at.String()))
		c := must[*nbdclient.Client](t)(nbdclient.New(nc, nbdclient.Options{Export: "disk"}))
		p := make([]byte, 512)
		if err := blk.ReadSectors(env.Real(), c, p, 1); err != nil || !bytes.HasPrefix(p, []byte("hello")) {
			t.Errorf("%v: %q, %v", at, p[:5], err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Stack().ListenNBD(path); !errors.Is(err, blk.Offline) {
		t.Errorf("a closed stack serves: %v", err)
	}
}
