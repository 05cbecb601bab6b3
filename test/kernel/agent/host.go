//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"udm/test/kernel/conform"
)

// host is the device mapper of the running kernel; its disks are loop devices over files in memory.
type host struct {
	keep  string // folder of disks that stay; empty for none
	loops []*loop
	kmsg  int // file descriptor
}

func newHost(keep string) (*host, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	return &host{keep: keep, kmsg: fd}, err
}

// AddDisk implements conform.Host.
func (h *host) AddDisk(name string, size int64, block int) (string, error) {
	l, err := newLoop(h.keep, name, size, block)
	if err != nil {
		return "", fmt.Errorf("disk %s: %w", name, err)
	}
	h.loops = append(h.loops, l)
	return l.path, nil
}

// Number implements conform.Host.
func (h *host) Number(path string) (string, error) {
	for _, l := range h.loops {
		if l.path == path {
			return l.number, nil
		}
	}
	return "", fmt.Errorf("%s is no disk", path)
}

// Dmsetup implements conform.Host.
func (h *host) Dmsetup(ctx context.Context, args []string, stdin string) (conform.Exit, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "dmsetup", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return conform.Exit{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}, err
}

// Open implements conform.Host.
func (h *host) Open(dev string) (conform.Device, error) {
	if strings.HasPrefix(dev, "/") {
		return openDevice(dev)
	}
	minor, err := mappedMinor(dev)
	if err != nil {
		return nil, err
	}
	return openDevice(fmt.Sprintf("/dev/dm-%d", minor))
}

// Log implements conform.Host: the kernel's messages, without the prefix that tells level and time.
func (h *host) Log() []string {
	var out []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(h.kmsg, buf)
		if errors.Is(err, unix.EPIPE) {
			continue // older messages were overwritten
		}
		if err != nil || n <= 0 {
			return out
		}
		_, text, _ := strings.Cut(string(buf[:n]), ";")
		text, _, _ = strings.Cut(text, "\n")
		if m, ok := strings.CutPrefix(text, "device-mapper: "); ok {
			out = append(out, m)
		}
	}
}

// Reset implements conform.Host.
func (h *host) Reset() error {
	ctx := context.Background()
	if _, err := h.Dmsetup(ctx, []string{"remove_all", "-f"}, ""); err != nil {
		return err
	}
	e, err := h.Dmsetup(ctx, []string{"ls"}, "")
	if err == nil && strings.TrimSpace(e.Stdout) != "No devices found" {
		err = errors.New("devices are left: " + e.Stdout)
	}
	for _, l := range h.loops {
		err = errors.Join(err, l.remove())
	}
	h.loops = nil
	h.Log()
	return err
}
