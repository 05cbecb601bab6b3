package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"udm/export/ublk"
)

// machine is the machine that doctor checks.
type machine struct {
	dir     string // the root directory
	root    bool   // the user is root
	limit   func(resource int) uint64
	program func(name string) bool
}

func thisMachine() machine {
	return machine{dir: "/", root: os.Geteuid() == 0, limit: softLimit, program: func(name string) bool {
		_, err := exec.LookPath(name)
		return err == nil
	}}
}

func softLimit(resource int) uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(resource, &l) != nil {
		return math.MaxUint64
	}
	return l.Cur
}

// Limits for a daemon with a thousand clients.
const (
	wantFiles  = 65536    // connections and the files of their devices
	wantLocked = 64 << 20 // bytes, for the rings of io_uring
	wantMaps   = 65530    // mappings of the memory of guests
)

func (m machine) examine() []check {
	return []check{
		m.device("FUSE", "dev/fuse", "udm mount, and udm attach by loop devices", "modprobe fuse"),
		m.fusermount(),
		m.device("loop devices", "dev/loop-control", "udm attach", "modprobe loop"),
		m.exists("nbd devices", "sys/module/nbd", "udm attach --nbd", "modprobe nbd"),
		m.ublk(),
		m.parameter("io_uring", "kernel.io_uring_disabled", func(n uint64) bool { return n == 0 },
			"efficient direct I/O; it uses threads instead, which take more processor time", "sysctl -w kernel.io_uring_disabled=0"),
		m.atLeast("open files", unix.RLIMIT_NOFILE, wantFiles, "many clients or devices at once", "ulimit -n 65536   # for the daemon: LimitNOFILE=65536 in its unit"),
		m.atLeast("locked memory", unix.RLIMIT_MEMLOCK, wantLocked, "large rings of io_uring, and keys that are never written to swap", "ulimit -l 65536   # for the daemon: LimitMEMLOCK=64M in its unit"),
		m.parameter("memory mappings", "vm.max_map_count", func(n uint64) bool { return n >= wantMaps },
			"many virtual machines at once, each with mappings of its memory", fmt.Sprintf("sysctl -w vm.max_map_count=%d", wantMaps)),
	}
}

func examined(name string, err error, without, command string) check {
	if err == nil {
		return check{Name: name, OK: true}
	}
	return check{Name: name, Problem: err.Error(), Without: without, Command: command}
}

// device checks that a file can be opened for reading and writing. If only the permission is
// missing, it replaces command.
func (m machine) device(name, path, without, command string) check {
	f, err := os.OpenFile(filepath.Join(m.dir, path), os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	if os.IsPermission(err) {
		command = "run it as root, or give the user access to /" + path
	}
	return examined(name, err, without, command)
}

func (m machine) exists(name, path, without, command string) check {
	_, err := os.Stat(filepath.Join(m.dir, path))
	return examined(name, err, without, command)
}

// ublk checks for the driver, and for a fault that it had.
func (m machine) ublk() check {
	const without = "udm attach by ublk, whose devices are the fastest and wait for the next daemon"
	c := m.exists("ublk devices", "sys/module/ublk_drv", without, "modprobe ublk_drv")
	text, _ := os.ReadFile(filepath.Join(m.dir, "proc/sys/kernel/osrelease"))
	if release := strings.TrimSpace(string(text)); c.OK && ublk.Faulty(release) {
		c.OK, c.Without, c.Problem = false, without, fmt.Sprintf("the driver of Linux %s may stop the kernel when a daemon is killed", release)
		c.Command = "install Linux 6.12.115 or later; until then udm attach takes it only with --ublk"
	}
	return c
}

// fusermount checks for the program that users other than root need to mount.
func (m machine) fusermount() check {
	c := check{Name: "fusermount3", OK: m.root || m.program("fusermount3")}
	if !c.OK {
		c.Problem, c.Without, c.Command = "the program is missing", "udm mount by a user other than root", "apt-get install fuse3"
	}
	return c
}

func (m machine) atLeast(name string, resource int, want uint64, without, command string) check {
	if n := m.limit(resource); n < want {
		return check{Name: name, Problem: fmt.Sprintf("the limit is %d; udm wants %d", n, want), Without: without, Command: command}
	}
	return check{Name: name, OK: true}
}

// parameter checks a kernel parameter. The check succeeds if the kernel lacks the parameter.
func (m machine) parameter(name, key string, good func(uint64) bool, without, command string) check {
	text, err := os.ReadFile(filepath.Join(m.dir, "proc/sys", strings.ReplaceAll(key, ".", "/")))
	n, perr := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err == nil && perr == nil && !good(n) {
		return check{Name: name, Problem: fmt.Sprintf("%s is %d", key, n), Without: without, Command: command}
	}
	return check{Name: name, OK: true}
}
