package multipath_test

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/filedev"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/multipath"
	"udm/test/need"
)

// server is a program that serves an image.
type server struct {
	t      *testing.T
	args   []string
	socket string
	cmd    *exec.Cmd
}

func newServer(t *testing.T, args func(socket string) []string) *server {
	socket := filepath.Join(t.TempDir(), "s")
	s := &server{t: t, args: args(socket), socket: socket}
	need.Tools(t, s.args[0])
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	os.Remove(s.socket)
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stderr = s.t.Output()
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) uri() string {
	return "nbd+unix:///disk?path=1&socket=" + url.QueryEscape(s.socket)
}

// TestTwoServers: two NBD servers of one image are killed and started again in turn, under
// load. No error is seen, and no wrong byte; a server that is back is used again.
func TestTwoServers(t *testing.T) {
	runtime.LockOSThread() // which the servers end with
	defer runtime.UnlockOSThread()
	const sectors = 4096
	rounds := 6
	if testing.Short() {
		rounds = 1
	}
	image := filepath.Join(t.TempDir(), "image")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(filedev.Create(image, sectors))
	servers := []*server{
		newServer(t, func(socket string) []string { return []string{"nbdkit", "-f", "-U", socket, "file", image} }),
		newServer(t, func(socket string) []string {
			return []string{"qemu-nbd", "--image-opts", "driver=raw,file.driver=file,file.locking=off,file.filename=" + image, "-t", "-e", "8", "-x", "disk", "-k", socket}
		}),
	}
	e := env.Real()
	c := dm.NewControl(e, leaf.New(e), multipath.Type())
	d, err := c.Create("x", "", -1)
	must(err)
	specs, err := dm.ParseTable("0 4096 multipath 3 queue_if_no_path polling_interval 1 0 2 1 round-robin 0 1 0 " + servers[0].uri() + " round-robin 0 1 0 " + servers[1].uri())
	must(err)
	for _, s := range servers {
		s.start()
	}
	for d.Load(specs, dm.Mode{Write: true}) != nil { // they tell nobody that they listen
		runtime.Gosched()
	}
	must(d.Resume(t.Context(), false))
	h, err := d.Open(true)
	must(err)
	l := blktest.StartLoad(t, checkdev.New(h, checkdev.Options{}), sectors, false)
	for range rounds {
		for i, s := range servers {
			l.More(50)
			s.kill()
			wait(l, d, func(p []multipath.PathStatus) bool { return p[i].Failed })
			l.More(50)
			s.start()
			wait(l, d, func(p []multipath.PathStatus) bool {
				return !slices.ContainsFunc(p, func(p multipath.PathStatus) bool { return p.Failed })
			})
		}
		_, err := d.Message(0, "switch_group 1")
		must(err)
	}
	l.Stop()
	must(l.D.Close())
	must(c.Close())
}

// wait waits for a state of the paths, as long as the load goes on.
func wait(l *blktest.Load, d *dm.Device, ok func([]multipath.PathStatus) bool) {
	for l.More(1) {
		s, err := multipath.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
		if err != nil {
			l.T.Fatal(err)
		}
		if ok([]multipath.PathStatus{s.Groups[0].Paths[0], s.Groups[1].Paths[0]}) {
			return
		}
	}
	l.T.Fatal("the load has ended")
}
