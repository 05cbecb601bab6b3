//go:build linux

package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/ctl"
	"udm/ctl/server/service"
	"udm/targets/all"
)

// fakeHelper is a helper without a kernel behind it: a process holds the socket, as the kernel
// does, until it is told to detach. $0 is a folder; there, "on" is there while something is
// attached, and "off" is a pipe.
const fakeHelper = `
read -r job
case $job in
*'"do":"attach"'*) : >"$0/on"; (read -r _ <"$0/off") >/dev/null 2>&1 & echo '{"path":"/dev/nbd7"}';;
*'"do":"detach"'*) if [ -e "$0/on" ]; then rm "$0/on"; echo >"$0/off"; echo '{}'; else echo '{"unused":true}'; fi;;
*) echo '{}';;
esac`

// helped starts a daemon with a helper.
func helped(t *testing.T, root string, helper ...string) (*ctl.Client, func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan *service.Service, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{Root: root, Program: "test", Types: all.Types(), Log: discard,
			Drain: 10 * time.Second, Helper: helper, Ready: func(s *service.Service) { ready <- s }})
	}()
	select {
	case <-ready:
	case err := <-ended:
		stop()
		t.Fatal(err)
	}
	client := ctl.NewClient(root)
	return client, func() {
		client.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

var nbdDisk = ctl.Attach{Ref: ctl.Ref{Name: "disk"}, Driver: ctl.DriverNBD}

// TestAttachByNBD: told twice it is the same, it is open, and it comes back after a
// restart.
func TestAttachByNBD(t *testing.T) {
	root, dir := tempRoot(t), t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "off"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	helper := []string{"sh", "-c", fakeHelper, dir}
	client, stop := helped(t, root, helper...)
	if _, err := client.Create(ctx, ctl.Create{Name: "disk", Table: "0 2048 zero"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if a, err := client.Attach(ctx, nbdDisk); err != nil || a.Path != "/dev/nbd7" {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	if err := client.Remove(ctx, ctl.Remove{Ref: nbdDisk.Ref}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("removing what is attached: %v", err)
	}
	stop()
	if _, err := os.Stat(filepath.Join(dir, "on")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("attached while no daemon runs: %v", err)
	}
	client, stop = helped(t, root, helper...)
	defer stop()
	if as, err := client.Attachments(ctx); err != nil || len(as) != 1 || as[0].Path != "/dev/nbd7" {
		t.Fatalf("after a restart: %+v, %v", as, err)
	}
	if err := client.Detach(ctx, nbdDisk.Ref); err != nil {
		t.Fatal(err)
	}
	if err := client.Remove(ctx, ctl.Remove{Ref: nbdDisk.Ref}); err != nil {
		t.Errorf("removing what was detached: %v", err)
	}
}

// TestAttachByNBDFails: a helper that fails leaves nothing open.
func TestAttachByNBDFails(t *testing.T) {
	for _, test := range []struct{ helper, want string }{
		{"exit 3", "exit status 3"},
		{"read -r job", "EOF"},
		{`read -r job; echo '{"error":{"errno":"ENODEV","reason":"no such driver"}}'`, "no such driver"},
		{`exec 3>&-; read -r job; echo '{"error":{"errno":"EPERM","reason":"no right"}}'`, "no right"},
	} {
		client, stop := helped(t, tempRoot(t), "sh", "-c", test.helper)
		ctx := context.Background()
		_, err := client.Create(ctx, ctl.Create{Name: "disk", Table: "0 2048 zero"})
		if err == nil {
			_, err = client.Attach(ctx, nbdDisk)
		}
		if err == nil || !strings.Contains(fmt.Sprint(err), test.want) {
			t.Errorf("%s: %v", test.helper, err)
		}
		if err := client.Remove(ctx, ctl.Remove{Ref: nbdDisk.Ref}); err != nil {
			t.Errorf("%s: %v", test.helper, err)
		}
		stop()
	}
}

// TestAttachDriver: only loop and nbd are drivers.
func TestAttachDriver(t *testing.T) {
	client, stop := helped(t, tempRoot(t), "false")
	defer stop()
	_, err := client.Attach(context.Background(), ctl.Attach{Ref: nbdDisk.Ref, Driver: "ubd"})
	if !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
}
