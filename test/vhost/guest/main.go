//go:build linux

// Command guest is process 1 of the virtual machine of package vhost, and all that runs in it. It
// loads the modules in its initramfs, and does what the host asks for on the second serial port:
// a line is a command, and each is answered by a line that begins with "ok" or "error".
//
//	load          begin verified I/O on all disks, on their part behind the first 64 MiB
//	more N        wait until N more requests have ended on each disk
//	stop          end the load, read everything, and say the sum of what was written
//	sum           say the sum of what is on the disks
//	disks         say name, serial number, queues and kind of rings of each
//	reboot        reset the machine
//
// A load that has found a fault says so at the next command.
package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// modules are those of virtio's disks, in the order in which they need each other.
var modules = []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"}

func main() {
	err := begin()
	if err == nil {
		err = serve("/dev/ttyS1")
	}
	fmt.Println("guest:", err)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func begin() error {
	for path, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		_ = os.Mkdir(path, 0o755) // or it is there
		if err := unix.Mount(kind, path, kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, name := range modules {
		f, err := os.Open("/" + name + ".ko")
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f.Close()
	}
	return nil
}

// serve does what the other end of a serial port asks for.
func serve(port string) error {
	f, err := os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	if err := raw(int(f.Fd())); err != nil {
		return err
	}
	fmt.Fprintln(f, "ok ready")
	g := new(machine)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		answer, err := g.do(strings.Fields(lines.Text()))
		if err != nil {
			fmt.Fprintln(f, "error", strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		fmt.Fprintln(f, "ok", answer)
	}
	return lines.Err()
}

// raw makes a terminal a plain line of bytes.
func raw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// machine is the guest.
type machine struct{ loads []*load }

func (g *machine) do(words []string) (string, error) {
	if len(words) == 0 {
		return "", fmt.Errorf("an empty command")
	}
	switch words[0] {
	case "disks":
		return describe()
	case "load":
		return "", g.start()
	case "more":
		n, err := strconv.Atoi(words[1])
		if err != nil {
			return "", err
		}
		return "", g.each(func(l *load) error { return l.more(n) })
	case "stop":
		return g.stop()
	case "sum":
		return g.sum()
	case "reboot":
		return "", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	return "", fmt.Errorf("no command %q", words[0])
}

func disks() ([]string, error) { return filepath.Glob("/sys/block/vd?") }

// describe says NAME=SERIAL,QUEUES,RINGS of each disk.
func describe() (string, error) {
	list, err := disks()
	var out []string
	for _, dir := range list {
		serial, serr := os.ReadFile(dir + "/serial")
		features, ferr := os.ReadFile(dir + "/device/features")
		queues, qerr := filepath.Glob(dir + "/mq/*")
		for _, e := range []error{serr, ferr, qerr} {
			if err == nil {
				err = e
			}
		}
		rings := "split"
		if len(features) > 34 && features[34] == '1' {
			rings = "packed"
		}
		out = append(out, fmt.Sprintf("%s=%s,%d,%s", filepath.Base(dir), serial, len(queues), rings))
	}
	return strings.Join(out, " "), err
}

func (g *machine) start() error {
	list, err := disks()
	if err != nil || g.loads != nil {
		return fmt.Errorf("there is a load already, or no disk: %v", err)
	}
	for _, dir := range list {
		l, err := startLoad("/dev/" + filepath.Base(dir))
		if err != nil {
			return err
		}
		g.loads = append(g.loads, l)
	}
	return nil
}

// each calls do for all loads, and says what the first one says that fails.
func (g *machine) each(do func(*load) error) error {
	for _, l := range g.loads {
		if err := do(l); err != nil {
			return err
		}
	}
	return nil
}

func (g *machine) stop() (string, error) {
	var sums []string
	steps := 0
	err := g.each(func(l *load) error {
		sum, err := l.stop()
		sums = append(sums, sum)
		steps += l.steps
		return err
	})
	g.loads = nil
	return fmt.Sprintf("%s %d", strings.Join(sums, ","), steps), err
}

func (g *machine) sum() (string, error) {
	list, err := disks()
	var sums []string
	for _, dir := range list {
		if err == nil {
			var sum string
			sum, err = sumOf("/dev/" + filepath.Base(dir))
			sums = append(sums, sum)
		}
	}
	return strings.Join(sums, ","), err
}
