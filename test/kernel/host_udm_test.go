//go:build unix

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"udm/cmd/udm/dmsetup"
	"udm/ctl"
	"udm/test/kernel/conform"
	"udm/test/kernel/nbdclient"
	"udm/test/watchdog"
)

// udmHost is a udm daemon with a root of its own; its disks are sparse files.
type udmHost struct {
	program string
	root    string
	daemon  *exec.Cmd
	log     daemonLog
	ended   chan error // takes what Wait says
	keep    string     // folder of disks that stay; empty: disks are removed after each script
	disks   []string
}

// startUDM starts a daemon that keeps everything below root, and waits until it is ready.
func startUDM(program, root string) (*udmHost, error) {
	h := &udmHost{program: program, root: root, ended: make(chan error, 1)}
	h.log.ready = make(chan struct{})
	h.daemon = exec.Command(program, "daemon", "--root", root)
	h.daemon.Stdout, h.daemon.Stderr = &h.log, &h.log
	h.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.daemon.Start(); err != nil {
		return nil, err
	}
	go func() { h.ended <- h.daemon.Wait() }()
	select {
	case <-h.log.ready:
		return h, nil
	case err := <-h.ended:
		return nil, fmt.Errorf("the daemon ended: %w\n%s", err, &h.log.text)
	}
}

// daemonLog is what a daemon prints; read after it has ended.
type daemonLog struct {
	text  bytes.Buffer
	ready chan struct{} // closed when it says that it is ready
	told  bool
}

func (l *daemonLog) Write(p []byte) (int, error) {
	l.text.Write(p)
	if !l.told && bytes.Contains(l.text.Bytes(), []byte("msg=ready")) {
		l.told = true
		close(l.ready)
	}
	return len(p), nil
}

// stop ends the daemon; what it printed is part of an error.
func (h *udmHost) stop() error {
	release := watchdog.Guard(h.daemon, time.Minute)
	_ = h.daemon.Process.Signal(syscall.SIGTERM)
	if err := errors.Join(<-h.ended, release()); err != nil {
		return fmt.Errorf("daemon: %w\n%s", err, &h.log.text)
	}
	return nil
}

// AddDisk implements conform.Host.
func (h *udmHost) AddDisk(name string, size int64, block int) (string, error) {
	dir := h.keep
	if dir == "" {
		dir = h.root
	}
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	if h.keep == "" {
		h.disks = append(h.disks, path)
	}
	err = errors.Join(f.Truncate(size), f.Close())
	if block != conform.SectorSize {
		path = fmt.Sprintf("block=%d:%s", block, path)
	}
	return path, err
}

// Number implements conform.Host. A disk that no table uses has none.
func (h *udmHost) Number(path string) (string, error) {
	client := ctl.NewClient(h.root)
	defer client.Close()
	for _, inactive := range []bool{false, true} {
		devices, err := client.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithDeps}, Inactive: inactive})
		if err != nil {
			return "", err
		}
		for _, d := range devices {
			for _, dep := range d.Deps {
				if dep.Source == path {
					return fmt.Sprintf("%d:%d", dep.Major, dep.Minor), nil
				}
			}
		}
	}
	return "", nil
}

// Dmsetup implements conform.Host. It runs the code of udm dmsetup without a process, which
// would take most of the time; a program given by a flag is run as such.
func (h *udmHost) Dmsetup(ctx context.Context, args []string, stdin string) (conform.Exit, error) {
	if *udm != "" {
		return h.run(ctx, args, stdin)
	}
	var stdout, stderr bytes.Buffer
	code := dmsetup.Run(ctx, h.root, args, dmsetup.Streams{In: strings.NewReader(stdin), Out: &stdout, Err: &stderr})
	return conform.Exit{Code: code, Stdout: stdout.String(), Stderr: stderr.String()}, nil
}

// run runs dmsetup of the program.
func (h *udmHost) run(ctx context.Context, args []string, stdin string) (conform.Exit, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, h.program, append([]string{"dmsetup"}, args...)...)
	cmd.Env = append(os.Environ(), "UDM_ROOT="+h.root, "LC_ALL=C")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	if err != nil {
		return conform.Exit{}, err
	}
	return conform.Exit{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}, nil
}

// Open implements conform.Host.
func (h *udmHost) Open(dev string) (conform.Device, error) {
	block := conform.SectorSize
	if option, path, ok := strings.Cut(dev, ":"); ok {
		if _, err := fmt.Sscanf(option, "block=%d", &block); err != nil {
			return nil, err
		}
		dev = path
	}
	if !strings.HasPrefix(dev, "/") {
		return nbdclient.Dial(filepath.Join(h.root, "nbd.sock"), dev)
	}
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	return disk{f, int64(block)}, err
}

// Log implements conform.Host.
func (h *udmHost) Log() []string { return nil }

// Reset implements conform.Host.
func (h *udmHost) Reset() error {
	ctx := context.Background()
	if _, err := h.Dmsetup(ctx, []string{"remove_all", "--force"}, ""); err != nil {
		return err
	}
	e, err := h.Dmsetup(ctx, []string{"ls"}, "")
	if err == nil && strings.TrimSpace(e.Stdout) != "No devices found" {
		err = errors.New("devices are left: " + e.Stdout + e.Stderr)
	}
	for _, d := range h.disks {
		err = errors.Join(err, os.Remove(d))
	}
	h.disks = nil
	return err
}

// disk is a file read and written beside the daemon, as the raw disk below its devices.
type disk struct {
	f     *os.File
	block int64 // bytes; accesses are aligned to it
}

func (d disk) aligned(off int64, n int) error {
	if (off|int64(n))%d.block != 0 {
		return syscall.EINVAL
	}
	return nil
}

func (d disk) Read(buf []byte, off int64) error {
	err := d.aligned(off, len(buf))
	if err == nil {
		_, err = d.f.ReadAt(buf, off)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (d disk) Write(buf []byte, off int64) error {
	err := d.aligned(off, len(buf))
	if err == nil {
		_, err = d.f.WriteAt(buf, off)
	}
	return err
}

func (d disk) Discard(off, n int64) error { return d.Zero(off, n) }
func (d disk) Zero(off, n int64) error    { return d.Write(make([]byte, n), off) }
func (d disk) Flush() error               { return d.f.Sync() }
func (d disk) Close() error               { return d.f.Close() }

func (d disk) Limits() (conform.Limits, error) {
	st, err := d.f.Stat()
	if err != nil {
		return conform.Limits{}, err
	}
	return conform.Limits{Sectors: st.Size() / conform.SectorSize, Block: int(d.block), Discard: true}, nil
}
