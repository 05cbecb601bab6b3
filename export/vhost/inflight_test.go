//go:build linux

package vhost

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk/filedev"
	"udm/export"
)

// serveFile names the variable that makes this program a server, of the file of that
// name with a socket beside it.
const serveFile = "UDM_TEST_VHOST_FILE"

func TestMain(m *testing.M) {
	if file := os.Getenv(serveFile); file != "" {
		if err := serveForEver(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveForEver serves until it is killed.
func serveForEver(file string) error {
	d, err := filedev.Open(file, filedev.Options{})
	if err != nil {
		return err
	}
	s, err := New(Config{Name: "d", Queues: 2, Exports: export.Fixed{{Info: export.Info{Name: "d"}, Device: export.Check(d)}}})
	if err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: file + ".sock", Net: "unix"})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return s.Serve(l)
}

// killable is a server in a process of its own.
type killable struct {
	file string
	cmd  *exec.Cmd
}

func (k *killable) start(t *testing.T) {
	_ = os.Remove(k.file + ".sock")
	k.cmd = exec.Command(os.Args[0])
	k.cmd.Env, k.cmd.Stderr = append(os.Environ(), serveFile+"="+k.file), t.Output()
	out := must[io.ReadCloser](t)(k.cmd.StdoutPipe())
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
}

func (k *killable) kill() {
	_ = k.cmd.Process.Kill()
	_ = k.cmd.Wait() // it was killed
}

// inflight asks for the memory of the notes.
func (f *front) inflight(d inflightDesc) (inflightDesc, int) {
	f.send(&message{request: getInflightFD, inflight: d})
	b, oob := make([]byte, headerLen+20+d.pad), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := f.c.ReadMsgUnix(b, oob)
	if err != nil || n != len(b) {
		f.t.Fatalf("%d bytes, %v", n, err)
	}
	got := must[fds](f.t)(rights(oob[:oobn]))
	m := new(message)
	if err := decodeInflight(b[headerLen:], m); err != nil || len(got) != 1 {
		f.t.Fatalf("%d files, %v", len(got), err)
	}
	return m.inflight, got[0]
}

// again connects to the next server, with the rings as they are.
func (f *front) again(path string, d inflightDesc, notes int) {
	f.c.Close()
	f.c = dial(f.t, path)
	f.send(&message{request: setProtocolFeatures, value: f.ask(&message{request: getProtocolFeatures}).value})
	f.mustDo(&message{request: setFeatures, value: f.ask(&message{request: getFeatures}).value})
	f.mustDo(&message{request: setInflightFD, inflight: d}, notes)
	f.mustDo(&message{request: setMemTable, regions: []regionDesc{f.region()}}, f.fd)
	f.start(12345) // front ends do not know better
}

// A server that is killed and started again under a guest loses no request, and what
// the guest reads is what it wrote.
func TestKilledUnderGuest(t *testing.T) {
	k := &killable{file: filepath.Join(t.TempDir(), "disk")}
	if err := os.WriteFile(k.file, make([]byte, sectors*512), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start(t)
	defer func() { k.kill() }()
	f := connect(t, k.file+".sock", true)
	f.negotiate(0)
	d, notes := f.inflight(inflightDesc{rings: 2, num: ringSize, pad: 4})
	defer unix.Close(notes)
	f.mustDo(&message{request: setInflightFD, inflight: d}, notes)
	f.start(0)
	random(t, f, 6000, func(i int) {
		if i%300 == 299 {
			k.kill()
			k.start(t)
			f.again(k.file+".sock", d, notes)
		}
	})
}

// Notes that cannot be are refused; those that are cut end the connection alone.
func TestHostileNotes(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := connect(t, path, false)
	f.negotiate(0)
	size := uint64(inflightLen(2, ringSize))
	for name, d := range map[string]inflightDesc{
		"no rings":    {size: size, num: ringSize},
		"three rings": {size: size, rings: 3, num: ringSize},
		"no entries":  {size: size, rings: 2},
		"too many":    {size: size, rings: 2, num: 65535},
		"short":       {size: size - 1, rings: 2, num: ringSize},
		"huge":        {size: 1 << 40, rings: 2, num: ringSize},
		"behind":      {size: size, offset: memLen, rings: 2, num: ringSize},
	} {
		if f.acked(&message{request: setInflightFD, inflight: d}, f.fd) {
			t.Errorf("%s: taken", name)
		}
	}
	file := must[int](t)(unix.MemfdCreate("notes", unix.MFD_CLOEXEC))
	defer unix.Close(file)
	if err := unix.Ftruncate(file, int64(size)); err != nil {
		t.Fatal(err)
	}
	f.mustDo(&message{request: setInflightFD, inflight: inflightDesc{size: size, rings: 2, num: ringSize}}, file)
	f.start(0)
	everyRequest(t, f)
	if f.acked(&message{request: setInflightFD, inflight: inflightDesc{size: size, rings: 2, num: ringSize}}, file) {
		t.Error("other notes for a ring that runs")
	}
	if err := unix.Ftruncate(file, 0); err != nil {
		t.Fatal(err)
	}
	f.add(&ioreq{op: typeFlush})
	f.publish()
	f.hungUp()
	f.close()
	everyRequest(t, guest(t, path, true, 0))
}
