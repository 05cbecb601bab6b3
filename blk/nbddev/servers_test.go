package nbddev_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/filedev"
	"udm/blk/nbddev"
	"udm/env"
	"udm/test/need"
)

// program is an NBD server that is not ours. It serves image at socket.
type program struct {
	t      *testing.T
	args   func(socket, image string) []string
	socket string
	image  string

	mu     sync.Mutex
	cmd    *exec.Cmd     // guarded by mu
	killed bool          // guarded by mu
	ended  chan struct{} // closed when the program has ended for good
}

const imageSectors = 4096

var programs = map[string]func(socket, image string) []string{
	"qemu-nbd": func(socket, image string) []string {
		return []string{"qemu-nbd", "-f", "raw", "-t", "-e", "8", "-x", "disk", "-k", socket, image}
	},
	"nbdkit": func(socket, image string) []string {
		return []string{"nbdkit", "-f", "-U", socket, "file", image}
	},
	"nbdkit delay and retry": func(socket, image string) []string {
		return []string{"nbdkit", "-f", "-U", socket, "--filter=retry", "--filter=delay", "--filter=error", "file", image,
			"retry-delay=1", "retries=1000", "delay-write=1ms", "error-rate=0.1%"}
	},
	// With -d it serves one connection, and says that it takes several.
	"nbd-server": func(socket, image string) []string {
		config := image + ".conf"
		os.WriteFile(config, fmt.Appendf(nil, "[generic]\nunixsock=%s\n[disk]\nexportname=%s\nflush=true\nfua=true\ntrim=true\n", socket, image), 0o600)
		return []string{"nbd-server", "-d", "-C", config}
	},
}

func newProgram(t *testing.T, args func(socket, image string) []string) *program {
	dir := t.TempDir()
	p := &program{t: t, args: args, socket: filepath.Join(dir, "s"), image: filepath.Join(dir, "image")}
	need.Tools(t, args(p.socket, p.image)[0])
	if err := filedev.Create(p.image, imageSectors); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// start starts the program, and starts it again whenever it ends, like a service
// manager: nbd-server -d ends when a client leaves during the handshake.
func (p *program) start() {
	p.killed, p.ended = false, make(chan struct{})
	args := p.args(p.socket, p.image)
	go func() {
		defer close(p.ended)
		for n := 0; p.run(args); n++ {
			if n == 100 {
				panic(args[0] + " ends by itself each time")
			}
		}
	}()
}

// run runs the program once. It returns false if the program was killed.
func (p *program) run(args []string) bool {
	os.Remove(p.socket)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = p.t.Output()
	p.mu.Lock()
	if p.killed {
		p.mu.Unlock()
		return false
	}
	err := cmd.Start()
	p.cmd = cmd
	p.mu.Unlock()
	if err != nil {
		panic(err)
	}
	err = cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.killed {
		p.t.Logf("%s ended: %v", args[0], err)
	}
	return !p.killed
}

func (p *program) kill() {
	p.mu.Lock()
	p.killed = true
	if p.cmd != nil {
		p.cmd.Process.Kill()
	}
	p.mu.Unlock()
	if p.ended != nil {
		<-p.ended
	}
	os.Remove(p.socket)
}

// connections is how many the program serves at once.
func (p *program) connections() string {
	if p.single() {
		return "1"
	}
	return "4"
}

// share is the part of all restarts that the program gets. nbd-server is slow: the
// client waits between its attempts.
func (p *program) share() int {
	if p.single() {
		return 40
	}
	return 8
}

// single reports whether the program serves one connection only.
func (p *program) single() bool { return p.args(p.socket, p.image)[0] == "nbd-server" }

func (p *program) open() *checkdev.Device {
	o, err := nbddev.Parse("nbd+unix:///disk?connections=" + p.connections() + "&socket=" + url.QueryEscape(p.socket))
	if err != nil {
		p.t.Fatal(err)
	}
	for { // it tells nobody that it listens
		d, err := nbddev.Open(env.Real(), o)
		if err == nil {
			return checkdev.New(d, checkdev.Options{Preflush: true})
		}
		runtime.Gosched()
	}
}

// Killed and started again under load: no wrong byte. The host's page cache, which
// is theirs, survives.
func TestOtherServersRestarted(t *testing.T) {
	for name, args := range programs {
		t.Run(name, func(t *testing.T) {
			blktest.Leaks(t)
			p := newProgram(t, args)
			p.start()
			d := p.open()
			l := blktest.StartLoad(t, d, imageSectors, name == "nbdkit delay and retry")
			for range restarts(p.share()) {
				if !l.More(10 + rand.IntN(40)) {
					break
				}
				p.kill()
				p.start()
			}
			l.Stop()
			d.Close()
			p.kill()
			f, err := filedev.Open(p.image, filedev.Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			l.D = f
			l.Read(0, imageSectors)
			f.Close()
		})
	}
}

func TestConformanceOfOtherServers(t *testing.T) {
	for name, args := range programs {
		if name == "nbdkit delay and retry" {
			continue // it fails
		}
		t.Run(name, func(t *testing.T) {
			need.Tools(t, args("", os.DevNull)[0])
			blktest.TestDevice(t, func(t *testing.T) blk.Device {
				p := newProgram(t, args)
				p.start()
				return p.open()
			})
		})
	}
}
