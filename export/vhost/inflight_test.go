//go:build linux

package vhost

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk/filedev"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/export"
	"udm/targets/all"
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
	x, err := openServed(file)
	if err != nil {
		return err
	}
	x.Info.Name = "d"
	s, err := New(Config{Name: "d", Queues: 2, Exports: export.Fixed{x}})
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

// thinSuffix is what the name of a pool's metadata ends with; its data are beside it.
const thinSuffix = ".thin"

// openServed opens a file, or a volume in a pool.
func openServed(file string) (x export.Export, err error) {
	if !strings.HasSuffix(file, thinSuffix) {
		d, err := filedev.Open(file, filedev.Options{})
		if err == nil {
			x.Device = export.Check(d)
		}
		return x, err
	}
	c := dm.NewControl(env.Real(), leaf.New(env.Real()), all.Types()...)
	var d *dm.Device
	for _, line := range [][2]string{
		{"pool", "0 16384 thin-pool " + file + " " + file + ".data 128 0"},
		{"volume", "0 " + fmt.Sprint(sectors) + " thin /dev/mapper/pool 0"},
	} {
		specs, err := dm.ParseTable(line[1])
		if err == nil {
			d, err = c.Create(line[0], "", -1)
		}
		if err == nil {
			err = d.Load(specs, dm.Mode{Write: true})
		}
		if err == nil {
			err = d.Resume(context.Background(), false)
		}
		if err != nil {
			return x, err
		}
		if line[0] == "pool" {
			_, _ = d.Message(0, "create_thin 0") // a server before may have done it
		}
	}
	dev, err := d.Open(true)
	if err == nil {
		x.Device, x.Uncommitted = export.Check(dev), d.Uncommitted
	}
	return x, err
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
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
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
	f.dial(path)
	f.send(&message{request: setProtocolFeatures, value: f.ask(&message{request: getProtocolFeatures}).value})
	features := f.ask(&message{request: getFeatures}).value
	if !f.packed {
		features &^= featPacked
	}
	f.mustDo(&message{request: setFeatures, value: features})
	f.mustDo(&message{request: setInflightFD, inflight: d}, notes)
	f.mustDo(&message{request: setMemTable, regions: []regionDesc{f.region()}}, f.fd)
	f.start(f.base)
}

// A server that is killed and started again under a guest loses no request, and what
// the guest reads is what it wrote.
func TestKilledUnderGuest(t *testing.T) {
	for _, packed := range []bool{false, true} {
		killedUnderGuest(t, packed)
	}
}

func killedUnderGuest(t *testing.T, packed bool) {
	k := &killable{file: filepath.Join(t.TempDir(), "disk")}
	if err := os.WriteFile(k.file, make([]byte, sectors*512), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start(t)
	defer func() { k.kill() }()
	f := connect(t, k.file+".sock", true)
	f.packed = packed
	f.negotiate(0)
	d, notes := f.inflight(inflightDesc{rings: 2, num: ringSize, pad: 4})
	defer unix.Close(notes)
	f.mustDo(&message{request: setInflightFD, inflight: d}, notes)
	f.start(0)
	random(t, f, 3000, func(i int) {
		if i%600 == 599 {
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
