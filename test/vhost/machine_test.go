//go:build linux

package vhost

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/test/watchdog"
)

// machine is a running QEMU.
type machine struct {
	t       *testing.T
	dir     string
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	ended   chan struct{} // closed when QEMU has ended
	monitor *qmp
	guest   net.Conn // the guest's second serial port
	answers *bufio.Reader
}

// memory of a guest in MiB.
const memory = "256"

// arguments are those of a machine whose disks are at the sockets; the second and any
// further one have packed rings. It boots from the first.
func arguments(dir string, sockets ...string) []string {
	args := []string{
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "qemu64,-cx16", "-smp", "2", "-m", memory,
		"-object", "memory-backend-memfd,id=m,size=" + memory + "M,share=on", "-numa", "node,memdev=m",
		"-nodefaults", "-display", "none",
		"-serial", "file:" + dir + "/console", "-chardev", "socket,id=guest,path=" + dir + "/guest.sock", "-serial", "chardev:guest",
		"-chardev", "file,id=firmware,path=" + dir + "/firmware", "-device", "isa-debugcon,iobase=0x402,chardev=firmware",
		"-qmp", "unix:" + dir + "/qmp.sock",
	}
	for i, path := range sockets {
		device := fmt.Sprintf("vhost-user-blk-pci,chardev=c%d,num-queues=2,bootindex=%d", i, i+1)
		if i > 0 {
			device += ",packed=on"
		}
		args = append(args, "-chardev", fmt.Sprintf("socket,id=c%d,path=%s,reconnect=1", i, path), "-device", device)
	}
	return args
}

// startMachine starts QEMU, which connects to sockets of this process for its monitor and
// the guest's serial port.
func startMachine(t *testing.T, sockets []string, more ...string) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	monitor, guest := m.listen("qmp.sock"), m.listen("guest.sock")
	m.cmd = exec.Command("qemu-system-x86_64", append(arguments(m.dir, sockets...), more...)...)
	m.cmd.Stderr = &m.stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, m.cmd.Start())
	release := watchdog.Guard(m.cmd, time.Hour)
	go func() {
		_ = m.cmd.Wait() // it is killed at the end
		if err := release(); err != nil {
			t.Error(err)
		}
		monitor.Close()
		guest.Close()
		close(m.ended)
	}()
	t.Cleanup(m.end)
	m.guest = m.accept(guest)
	m.answers = bufio.NewReader(m.guest)
	var err error
	m.monitor, err = newQMP(m.accept(monitor))
	must(t, err)
	return m
}

func (m *machine) listen(name string) net.Listener {
	m.t.Helper()
	l, err := net.Listen("unix", filepath.Join(m.dir, name))
	must(m.t, err)
	return l
}

func (m *machine) accept(l net.Listener) net.Conn {
	m.t.Helper()
	c, err := l.Accept()
	if err != nil {
		m.t.Fatalf("QEMU: %v\n%s", err, &m.stderr)
	}
	return c
}

// end kills QEMU, and shows what it and its guest have said if the test has failed.
func (m *machine) end() {
	_ = m.cmd.Process.Kill()
	<-m.ended
	if m.t.Failed() {
		console, _ := os.ReadFile(filepath.Join(m.dir, "console"))
		m.t.Logf("QEMU: %s\nconsole: %s\nfirmware: %s", &m.stderr, console, m.firmware())
	}
}

// firmware is the log of SeaBIOS.
func (m *machine) firmware() string {
	log, _ := os.ReadFile(filepath.Join(m.dir, "firmware")) // shown, or compared
	return string(log)
}

// answer reads the guest's next line, which must be "ok …".
func (m *machine) answer() string {
	m.t.Helper()
	line, err := m.answers.ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = errors.New("QEMU has ended")
	}
	must(m.t, err)
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), "ok")
	if !ok {
		m.t.Fatalf("the guest: %q", line)
	}
	return strings.TrimSpace(rest)
}

// do has the guest carry out a command.
func (m *machine) do(command string) string {
	m.t.Helper()
	m.tell(command)
	return m.answer()
}

func (m *machine) tell(command string) {
	m.t.Helper()
	_, err := fmt.Fprintln(m.guest, command)
	must(m.t, err)
}

// booted waits until the guest is ready.
func (m *machine) booted() {
	m.t.Helper()
	if got := m.answer(); got != "ready" {
		m.t.Fatalf("the guest begins with %q", got)
	}
}

// pause stops the guest, and has it go on.
func (m *machine) pause() {
	m.t.Helper()
	must(m.t, m.monitor.do("stop", nil))
	must(m.t, m.monitor.do("cont", nil))
}
