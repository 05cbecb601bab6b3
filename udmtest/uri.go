package udmtest

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	"udm/export/nbd"
)

// URI serves the disk by NBD on a Unix socket and returns its NBD URI, for programs such
// as qemu, nbdkit and the tools of libnbd. It needs neither FUSE nor root. The server
// runs until the test ends.
func (d *Disk) URI() string {
	d.t.Helper()
	if d.uri != "" {
		return d.uri
	}
	// The path of a test's directory may be too long for a socket.
	dir, err := os.MkdirTemp("", "udmtest")
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "nbd")
	if err := d.serve(socket); err != nil {
		d.t.Fatalf("udmtest: %v", err)
	}
	d.uri = "nbd+unix:///disk?socket=" + socket
	return d.uri
}

func (d *Disk) serve(socket string) error {
	s, err := nbd.New(nbd.Config{Exports: d.exports()})
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	d.t.Cleanup(func() {
		err := s.Close()
		if served := <-ended; !errors.Is(served, nbd.ErrClosed) {
			err = errors.Join(err, served)
		}
		if err != nil {
			d.t.Error(err)
		}
	})
	return nil
}
