//go:build linux

package server

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"udm/ctl"
)

// monitor connects as a virtual machine monitor does, and is served when it returns.
func monitor(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	getFeatures := []byte{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}
	if _, err := c.Write(getFeatures); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 20)); err != nil {
		t.Fatal(err)
	}
	return c
}

// cutOff waits until a connection is cut.
func cutOff(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes instead of the end", n)
	}
}

// An export is told of, is held by who uses it, comes back after a restart at the same
// place, and goes with its device.
func TestExportToVirtualMachines(t *testing.T) {
	root, ctx := tempRoot(t), context.Background()
	path := filepath.Join(t.TempDir(), "s")
	x := ctl.Export{Ref: ref("disk"), Path: path, Queues: 3, ReadOnly: true, Mode: 0o666}
	client, stop := helped(t, root, "false")
	if _, err := client.Create(ctx, ctl.Create{Name: "disk", Table: "0 2048 zero"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := client.Export(ctx, x); err != nil || got.Path != path || got.Name != "disk" || got.Queues != 3 || !got.ReadOnly {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	other := x
	other.ReadOnly = false
	if _, err := client.Export(ctx, other); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("the same socket otherwise: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	c := monitor(t, path)
	usedByOne(t, client, path)
	stop()
	cutOff(t, c)
	client, stop = helped(t, root, "false")
	defer stop()
	if xs, err := client.Exported(ctx); err != nil || len(xs) != 1 || xs[0].Path != path || xs[0].Queues != 3 || !xs[0].ReadOnly || xs[0].Problem != "" {
		t.Fatalf("after a restart: %+v, %v", xs, err)
	}
	c = monitor(t, path)
	if err := client.Remove(ctx, ctl.Remove{Ref: ref("disk")}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("removing what is in use: %v", err)
	}
	if err := client.Unexport(ctx, ctl.Unexport{Path: path}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("ending what is in use: %v", err)
	}
	if err := client.Unexport(ctx, ctl.Unexport{Path: path, Force: true}); err != nil {
		t.Error(err)
	}
	cutOff(t, c)
	x.Path += "2"
	if _, err := client.Export(ctx, x); err != nil {
		t.Fatal(err)
	}
	if err := client.Remove(ctx, ctl.Remove{Ref: ref("disk")}); err != nil {
		t.Fatal(err)
	}
	if xs, err := client.Exported(ctx); err != nil || len(xs) != 0 {
		t.Errorf("without the device: %+v, %v", xs, err)
	}
}

// usedByOne checks what is told of one virtual machine that has the device.
func usedByOne(t *testing.T, client *ctl.Client, path string) {
	t.Helper()
	ctx := context.Background()
	list, err := client.FrontEnds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	last := list[len(list)-1]
	want := ctl.FrontEndClient{Address: path, Device: "disk", ReadOnly: true}
	if last.Name != "vhost-user" || last.Exports != 1 || len(last.Clients) != 1 || last.Clients[0] != want {
		t.Errorf("%+v", last)
	}
	if d, err := client.Device(ctx, ctl.Query{Ref: ref("disk")}); err != nil || d.Holders["vhost-user"] != 1 {
		t.Errorf("%+v, %v", d, err)
	}
}

// What no socket can be made of is refused, and what lies there stays.
func TestExportRefused(t *testing.T) {
	client, stop := helped(t, tempRoot(t), "false")
	defer stop()
	ctx, dir := context.Background(), t.TempDir()
	if _, err := client.Create(ctx, ctl.Create{Name: "disk", Table: "0 2048 zero"}); err != nil {
		t.Fatal(err)
	}
	file, busy := filepath.Join(dir, "file"), filepath.Join(dir, "busy")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", busy)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]struct {
		x    ctl.Export
		want error
	}{
		"relative":    {ctl.Export{Path: "s"}, syscall.EINVAL},
		"long":        {ctl.Export{Path: "/" + string(make([]byte, 200))}, syscall.ENAMETOOLONG},
		"a file":      {ctl.Export{Path: file}, syscall.EEXIST},
		"busy":        {ctl.Export{Path: busy}, syscall.EBUSY},
		"queues":      {ctl.Export{Path: filepath.Join(dir, "q"), Queues: 65}, syscall.EINVAL},
		"poll":        {ctl.Export{Path: filepath.Join(dir, "p"), Poll: 1001}, syscall.EINVAL},
		"mode":        {ctl.Export{Path: filepath.Join(dir, "m"), Mode: 0o1777}, syscall.EINVAL},
		"no such dir": {ctl.Export{Path: filepath.Join(dir, "none", "s")}, nil},
	} {
		c.x.Name = "disk"
		if _, err := client.Export(ctx, c.x); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if xs, err := client.Exported(ctx); err != nil || len(xs) != 0 {
		t.Errorf("%+v, %v", xs, err)
	}
}

// A socket that a killed daemon has left is replaced.
func TestExportAfterKill(t *testing.T) {
	client, stop := helped(t, tempRoot(t), "false")
	defer stop()
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if _, err := client.Create(ctx, ctl.Create{Name: "disk", Table: "0 2048 zero"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Export(ctx, ctl.Export{Ref: ref("disk"), Path: path}); err != nil {
		t.Fatal(err)
	}
	monitor(t, path)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}
