//go:build linux

package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"udm/ctl"
	"udm/ctl/server/handover"
)

// keepRoot is the environment of a keeper: its root.
const keepRoot = "UDM_TEST_KEEP_ROOT"

// A test binary is also a keeper.
func init() {
	root := os.Getenv(keepRoot)
	if root == "" {
		return
	}
	err := handover.ServeKeeper(context.Background(), root, slog.New(slog.NewTextHandler(os.Stderr, nil)), func() { fmt.Println("ready") })
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// keepFor runs a keeper for a root, in another process, as this one uses what it keeps.
func keepFor(t *testing.T, root string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), keepRoot+"="+root)
	cmd.Stderr, cmd.SysProcAttr = t.Output(), &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if p := make([]byte, 6); readFull(out, p) != nil || string(p) != "ready\n" {
		t.Fatalf("the keeper says %q", p)
	}
}

func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	return err
}

// again starts the daemon of a root again, once the one before has ended.
func (r *replaced) again(sig syscall.Signal) {
	r.t.Helper()
	r.must(r.cmd.Process.Signal(sig))
	_ = r.cmd.Wait()
	_, err := io.ReadAll(r.out) // nobody has the other end
	r.must(err)
	r.out.Close()
	r.start("")
	r.ready()
}

// A file that is open while the daemon is restarted works on, in mounts by name and by
// number, and has what was written before. After a kill it gives errors.
func TestKeptOpen(t *testing.T) {
	r := startReplaced(t, "")
	keepFor(t, r.root)
	r.must(r.Mount(context.Background(), ctl.Mount{Numbered: true}))
	dirs := []string{filepath.Join(r.root, "mnt", "v"), filepath.Join(r.root, "by-number", "dm-0")}
	var files []*os.File
	for _, path := range dirs {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		r.must(err)
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	for round := range uint64(3) {
		for _, f := range files {
			r.must(overFile{f}.write(filled(round), int(round)))
		}
		r.again(syscall.SIGTERM)
		for i, f := range files {
			for block := range round + 1 {
				p := make([]byte, blockSize)
				if err := (overFile{f}).read(p, int(block)); err != nil || string(p) != string(filled(block)) {
					t.Errorf("%s, block %d after %d restarts: %v, %x", dirs[i], block, round+1, err, p[:16])
				}
			}
		}
	}
	written := make(chan error)
	r.must(r.cmd.Process.Signal(syscall.SIGSTOP)) // so that the write waits
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(r.cmd.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Fatalf("the daemon does not stop: %v, %v", ws, err)
	}
	go func() { written <- overFile{files[0]}.write(filled(9), 9) }()
	r.again(syscall.SIGKILL)
	if err := <-written; err == nil {
		t.Error("a write that a killed daemon had not done did not fail")
	}
	if err := (overFile{files[0]}).read(make([]byte, blockSize), 0); err == nil {
		t.Error("a file of a killed daemon can be read")
	}
}

// Without a keeper an open file gives errors after a restart.
func TestNotKept(t *testing.T) {
	r := startReplaced(t, "")
	f, err := os.OpenFile(filepath.Join(r.root, "mnt", "v"), os.O_RDWR, 0)
	r.must(err)
	defer f.Close()
	r.again(syscall.SIGTERM)
	if err := (overFile{f}).read(make([]byte, blockSize), 0); err == nil {
		t.Error("the file can be read")
	}
}

// What was open on a device that is not there after a restart gives errors; the rest works on.
func TestKeptLoses(t *testing.T) {
	r := startReplaced(t, "")
	keepFor(t, r.root)
	var files []*os.File
	for _, name := range []string{"disk", "v"} {
		f, err := os.OpenFile(filepath.Join(r.root, "mnt", name), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		r.must(overFile{f}.write(filled(1), 1))
		files = append(files, f)
	}
	r.must(r.cmd.Process.Signal(syscall.SIGTERM))
	_ = r.cmd.Wait()
	r.must(os.Rename(filepath.Join(r.root, "disk.img"), filepath.Join(r.root, "elsewhere.img")))
	_, err := io.ReadAll(r.out)
	r.must(err)
	r.out.Close()
	r.start("")
	r.ready()
	p := make([]byte, blockSize)
	if err := (overFile{files[0]}).read(p, 1); err == nil {
		t.Error("a device without its disk can be read")
	}
	if err := (overFile{files[1]}).read(p, 1); err != nil || string(p) != string(filled(1)) {
		t.Errorf("%v, %x", err, p[:16])
	}
}
