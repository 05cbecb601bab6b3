//go:build unix

package nbdclient_test

import (
	"bytes"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"udm/blk/memdev"
	"udm/export"
	"udm/export/nbd"
	"udm/test/kernel/conform"
	"udm/test/kernel/nbdclient"
)

// serve serves exports until the test ends and returns the socket.
func serve(t *testing.T, x nbd.Exports) string {
	t.Helper()
	s, err := nbd.New(nbd.Config{Exports: x})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return socket
}

func TestClient(t *testing.T) {
	var released atomic.Bool
	socket := serve(t, nbd.Fixed{
		{Info: nbd.Info{Name: "a"}, Device: export.Check(memdev.New(64)), Release: func() { released.Store(true) }},
		{Info: nbd.Info{Name: "ro", ReadOnly: true}, Device: export.Check(memdev.New(64))},
	})
	if _, err := nbdclient.Dial(socket, "nosuch"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("unknown export: %v, want ENOENT", err)
	}
	c, err := nbdclient.Dial(socket, "a")
	if err != nil {
		t.Fatal(err)
	}
	buf, back := make([]byte, 8*512), make([]byte, 8*512)
	conform.Fill(buf, 1, 0)
	check := func(what string, err error) {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("write", c.Write(buf, 4096))
	check("zero", c.Zero(4096, 512))
	check("discard", c.Discard(4096+512, 512))
	check("flush", c.Flush())
	check("read", c.Read(back, 4096))
	if !bytes.Equal(back[1024:], buf[1024:]) || !bytes.Equal(back[:512], make([]byte, 512)) {
		t.Errorf("content %q", conform.Describe(back, 8))
	}
	if l, _ := c.Limits(); l.Sectors != 64 || l.Block != 512 || l.ReadOnly || !l.Discard {
		t.Errorf("limits %+v", l)
	}
	check("close", c.Close())
	if !released.Load() {
		t.Error("the server holds the device after Close")
	}
	if c, err = nbdclient.Dial(socket, "ro"); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(buf, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("write to a read-only export: %v, want EPERM", err)
	}
	check("close", c.Close())
}
