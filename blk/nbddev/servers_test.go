package nbddev_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	cmd    *exec.Cmd
	ended  chan error // of cmd
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
		config := socket + ".conf"
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

func (p *program) start() {
	args := p.args(p.socket, p.image)
	p.cmd, p.ended = exec.Command(args[0], args[1:]...), make(chan error, 1)
	p.cmd.Stderr = p.t.Output()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func(c *exec.Cmd, ended chan error) { ended <- c.Wait() }(p.cmd, p.ended)
}

func (p *program) kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		<-p.ended
		os.Remove(p.socket)
		p.cmd = nil
	}
}

// connections is how many the program serves at once.
func (p *program) connections() string {
	if p.cmd.Args[0] == "nbd-server" {
		return "1"
	}
	return "4"
}

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
		select {
		case ended := <-p.ended:
			p.cmd = nil
			p.t.Fatalf("%v: %v", err, ended)
		default:
			runtime.Gosched()
		}
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
			l := startLoad(t, d, imageSectors, name == "nbdkit delay and retry")
			for range restarts() / 8 {
				if !l.more(10 + rand.IntN(40)) {
					break
				}
				p.kill()
				p.start()
			}
			l.stop()
			d.Close()
			p.kill()
			f, err := filedev.Open(p.image, filedev.Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			l.d = f
			l.read(0, imageSectors)
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
