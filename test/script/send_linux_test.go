package script

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk/nbddev"
	"udm/ctl"
	"udm/test/need"
	"udm/volume"
)

// twoDaemons are one with two snapshots in a pool, and one with an empty pool.
type twoDaemons struct {
	t              *testing.T
	dir, near, far string // roots
	log            string // of far, until it was ready
	client         *ctl.Client
	cut            *cutter // on the way to far
}

func newTwoDaemons(t *testing.T, args ...string) *twoDaemons {
	dir := shortDir(t)
	d := &twoDaemons{t: t, dir: dir, near: filepath.Join(dir, "near"), far: filepath.Join(dir, "far")}
	startFor(t, d.near)
	d.log = startFor(t, d.far, args...).started
	d.client = ctl.NewClient(d.far)
	t.Cleanup(d.client.Close)
	run(t, d.near, "pool", "create", "p", "--size", "64M")
	run(t, d.far, "pool", "create", "q", "--size", "64M")
	run(t, d.near, "volume", "create", "p", "disk", "--size", "4M")
	rng := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{"monday", "tuesday"} {
		p := make([]byte, 1<<20)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		image := filepath.Join(dir, "image")
		must(t, os.WriteFile(image, p, 0o600))
		run(t, d.near, "cp", image, "disk")
		run(t, d.near, "snapshot", "disk", name)
	}
	return d
}

// same sees that both daemons have a device, with the same content.
func (d *twoDaemons) same(near, far string) {
	d.t.Helper()
	a, b := filepath.Join(d.dir, "a"), filepath.Join(d.dir, "b")
	run(d.t, d.near, "cp", near, a)
	run(d.t, d.far, "cp", far, b)
	p, err := os.ReadFile(a)
	must(d.t, err)
	q, err := os.ReadFile(b)
	must(d.t, err)
	if !bytes.Equal(p, q) {
		d.t.Errorf("%s there is not %s here", far, near)
	}
	must(d.t, os.Remove(a))
	must(d.t, os.Remove(b))
}

// absent sees, when all has ended that the other daemon does, that it has no such device.
func (d *twoDaemons) absent(names ...string) {
	d.t.Helper()
	for { // who was cut off hears of it later
		operations, err := d.client.Operations(context.Background())
		must(d.t, err)
		if len(operations) == 0 {
			break
		}
	}
	objects, err := d.client.Objects(context.Background())
	must(d.t, err)
	for _, o := range objects {
		for _, name := range names {
			if o.Name == name {
				d.t.Errorf("there is a %s", name)
			}
		}
	}
}

// fails runs udm on the near daemon; it must fail and say something that matches.
func (d *twoDaemons) fails(want string, args ...string) {
	d.t.Helper()
	out, err := exec.Command(udm(), append([]string{"--root", d.near}, args...)...).CombinedOutput()
	if err == nil || !regexp.MustCompile(want).Match(out) {
		d.t.Errorf("udm %s: %v: %s; want %s", strings.Join(args, " "), err, out, want)
	}
}

// cutter is a proxy that cuts a connection after so many bytes from its client.
type cutter struct {
	listener net.Listener
	to       string
	all      sync.WaitGroup

	mu   sync.Mutex
	left int64 // guarded by mu; negative: no limit
}

func newCutter(t *testing.T, to string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cutter{listener: l, to: to, left: -1}
	c.all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.all.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); c.all.Wait() })
	return c
}

func (c *cutter) port() int { return c.listener.Addr().(*net.TCPAddr).Port }

// after cuts the next connection.
func (c *cutter) after(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = n
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	c.mu.Lock()
	left := c.left
	c.left = -1
	c.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server) // until one side ends
		client.Close()
	})
	if left < 0 {
		_, _ = io.Copy(server, client)
	} else {
		_, _ = io.CopyN(server, client, left)
	}
	server.Close()
	client.Close()
	back.Wait()
}

// TestSendTo sends from daemon to daemon by TLS, and on this machine. What is cut off is
// resumed; a client without a certificate is refused, and one with it can only send.
func TestSendTo(t *testing.T) {
	certs, other := t.TempDir(), t.TempDir()
	a := newAuthority(t, certs)
	cert, key := a.issue(certs, "server")
	a.issue(certs, "client")
	newAuthority(t, other).issue(other, "client")
	d := newTwoDaemons(t, "--receive", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, "--tls-ca", filepath.Join(certs, "ca-cert.pem"))
	m := regexp.MustCompile(`front_end=receive addresses=\S*?(127\S*:\d+)`).FindStringSubmatch(d.log)
	if m == nil {
		t.Fatal(d.log)
	}
	d.cut = newCutter(t, m[1])
	at := fmt.Sprint("tls://127.0.0.1:", d.cut.port())
	to := func(args ...string) []string {
		return append([]string{"send"}, append(args, "--to", at, "--certificates", certs)...)
	}
	d.fails("cannot connect|certificate", "send", "monday", "--to", at, "--pool", "q", "--certificates", other)
	d.cut.after(600_000)
	d.fails("give the same command again", to("monday", "--pool", "q")...)
	d.absent("monday")
	run(t, d.near, to("monday", "--pool", "q")...)
	d.same("monday", "monday")
	d.absent("monday-incoming")
	d.fails("a device named monday exists already", to("monday", "--pool", "q")...)
	d.fails("monday was written to|based on a different|is writable", to("tuesday", "--from", "monday", "--base", "q")...)
	run(t, d.near, to("tuesday", "--from", "monday", "--name", "then")...)
	d.same("tuesday", "then")
	run(t, d.near, "send", "tuesday", "--to", d.far, "--pool", "q")
	d.same("tuesday", "tuesday")
	d.fails("cannot be named", to("tuesday", "--from", "monday", "--base", "/x", "--name", "y")...)
	d.onlySends(at, certs)
}

// onlySends sees that commands and files are out of reach at an address.
func (d *twoDaemons) onlySends(at, certs string) {
	d.t.Helper()
	conf := &tls.Config{}
	must(d.t, nbddev.ReadCertificates(conf, certs))
	c := ctl.NewTLSClient(strings.TrimPrefix(at, "tls://"), conf)
	defer c.Close()
	ctx := context.Background()
	if _, err := c.Receive(ctx, volume.ReceiveSpec{File: filepath.Join(d.dir, "file")}, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "cannot be named") {
		d.t.Errorf("a file is named: %v", err)
	}
	if err := c.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: "monday"}}); err == nil || !strings.Contains(err.Error(), "is not a command") {
		d.t.Errorf("a device is removed: %v", err)
	}
	if all, err := c.Objects(ctx); err != nil || len(all) > 0 {
		d.t.Errorf("it tells of %v, %v", all, err)
	}
}

// sshd is a real one, which serves this user.
func (d *twoDaemons) sshd() (config string) {
	t := d.t
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin") // where sshd is
	need.Tools(t, "sshd", "ssh", "ssh-keygen")
	sshd, err := exec.LookPath("sshd")
	must(t, err)
	at := func(name string) string { return filepath.Join(d.dir, name) }
	for _, name := range []string{"host", "client"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at(name)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	must(t, l.Close())
	if os.Geteuid() == 0 {
		must(t, os.MkdirAll("/run/sshd", 0o755)) // Debian's sshd looks for it
	}
	who, err := user.Current()
	must(t, err)
	must(t, os.WriteFile(at("sshd.conf"), fmt.Appendf(nil, `Port %d
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
SetEnv UDM_ROOT=%s PATH=%s:/usr/bin:/bin
`, port, at("host"), at("client.pub"), d.far, filepath.Dir(udm())), 0o600))
	c := exec.Command(sshd, "-D", "-e", "-f", at("sshd.conf"))
	said, err := c.StderrPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() }) // it was to be killed
	waitFor(t, said, "Server listening")
	d.cut = newCutter(t, fmt.Sprint("127.0.0.1:", port))
	must(t, os.WriteFile(at("ssh.conf"), fmt.Appendf(nil, `Host far
HostName 127.0.0.1
Port %d
User %s
IdentityFile %s
IdentitiesOnly yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
`, d.cut.port(), who.Username, at("client")), 0o600))
	return at("ssh.conf")
}

// waitFor reads until a line has a word, and reads on.
func waitFor(t *testing.T, r io.Reader, word string) {
	t.Helper()
	var said strings.Builder
	for p := make([]byte, 512); !strings.Contains(said.String(), word); {
		n, err := r.Read(p)
		said.Write(p[:n])
		if err != nil {
			t.Fatalf("%v: %s", err, &said)
		}
	}
	go io.Copy(io.Discard, r) // until the program ends
}

// TestSendBySSH sends through a real sshd: all, what has changed, and the rest of what was
// cut off.
func TestSendBySSH(t *testing.T) {
	d := newTwoDaemons(t)
	config := d.sshd()
	shell := func(script string) error {
		c := exec.Command("sh", "-c", strings.NewReplacer("udm send", udm()+" send", "ssh far", "ssh -F "+config+" far").Replace(script))
		c.Env = append(os.Environ(), "UDM_ROOT="+d.near)
		out, err := c.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", script, err, out)
		}
		return err
	}
	fifo := filepath.Join(d.dir, "fifo") // tells when a command there has ended, which is later
	must(t, unix.Mkfifo(fifo, 0o600))
	cut := func(command string) {
		t.Helper()
		d.cut.after(600_000)
		if shell("udm send monday | ssh far '"+command+"; echo $? > "+fifo+"'") == nil {
			t.Error("a stream that is cut off is received")
		}
		if code, err := os.ReadFile(fifo); err != nil || string(code) == "0\n" {
			t.Errorf("%s has ended well, or %v", command, err)
		}
	}
	cut("udm receive --pool q")
	d.absent("monday", "monday-incoming")
	cut("udm receive --pool q --keep monday")
	d.absent("monday")
	must(t, shell("udm send --offset $(ssh far udm receive --where monday) monday | ssh far udm receive --resume monday"))
	d.same("monday", "monday")
	must(t, shell("udm send --from monday tuesday | ssh far udm receive"))
	d.same("tuesday", "tuesday")
}
