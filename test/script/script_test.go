// Package script runs udm as its users do: real processes on real sockets.
//
// The scripts of testdata are those of rogpeppe/go-internal's testscript with
// these commands beside the usual ones:
//
//	daemon [ARG…]         starts udm daemon and waits until it is ready
//	stop                  ends it by SIGTERM and expects exit code 0
//	kill9                 kills it
//	wrong REGEXP ARG…     runs udm, which must exit with 1, say one line that
//	                      matches, and change nothing: neither a device nor what
//	                      is saved. What dmsetup says may end in a second line,
//	                      "Command failed." or "Couldn't process command line."
//	misused REGEXP ARG…   the same of a command line that is wrong in itself: exit
//	                      code 2, and the usage line
//	need PROGRAM…         skips the script where one is missing; see package need
//	sparse FILE SIZE      makes a sparse file
//	golden PART           writes the disks of package lvm/golden to $DIR, and the
//	                      checksums of their volumes to $DIR/sums
//	quickstart [ARG…]     starts udm quickstart, in $DIR/q unless told otherwise,
//	                      and waits until it has said all
//	interrupt             ends it as Ctrl-C does and expects exit code 0
//
// $UDM_ROOT is the daemon's root and $DIR a directory for files.
package script

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"udm/blk/leaf"
	"udm/ctl"
	"udm/lvm/golden"
	"udm/test/need"
	"udm/test/program"
)

func TestMain(m *testing.M) { program.Main(m) }

// udm is the program that is tested.
func udm() string { return program.MustBuild("udm/cmd/udm") }

// daemon is a running udm daemon.
type daemon struct {
	cmd *exec.Cmd
	log *bufio.Scanner // of its standard error

	started string // what it logged until it was ready
	ended   bool
}

// startFor starts a daemon that does not outlive a test.
func startFor(t testing.TB, root string, args ...string) *daemon {
	t.Helper()
	d, err := start(root, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !d.ended {
			_ = d.kill()
		}
	})
	return d
}

// start starts a daemon and waits until it says that it is ready.
func start(root string, args ...string) (*daemon, error) {
	d := &daemon{cmd: exec.Command(udm(), append([]string{"daemon", "--root", root}, args...)...)}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	d.log = bufio.NewScanner(stderr)
	var lines []string
	for d.log.Scan() {
		lines = append(lines, d.log.Text())
		if strings.Contains(d.log.Text(), "msg=ready") {
			d.started = strings.Join(lines, "\n")
			return d, nil
		}
	}
	return nil, fmt.Errorf("the daemon ended: %v\n%s", d.cmd.Wait(), strings.Join(lines, "\n"))
}

// end signals the daemon and waits for its end. The rest of its log is returned.
func (d *daemon) end(s os.Signal) (log string, err error) {
	d.ended = true
	if err := d.cmd.Process.Signal(s); err != nil {
		return "", err
	}
	var lines []string
	for d.log.Scan() {
		lines = append(lines, d.log.Text())
	}
	return strings.Join(lines, "\n"), d.cmd.Wait()
}

// stop ends the daemon in good order.
func (d *daemon) stop() error {
	log, err := d.end(syscall.SIGTERM)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, log)
	}
	return err
}

// kill kills the daemon.
func (d *daemon) kill() error {
	_, err := d.end(syscall.SIGKILL)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": cmdDaemon, "stop": cmdStop, "kill9": cmdKill, "wrong": cmdWrong, "misused": cmdMisused, "sparse": cmdSparse,
			"quickstart": cmdQuickstart, "interrupt": cmdInterrupt, "need": cmdNeed, "golden": cmdGolden,
		},
	})
}

// running holds the daemon of a script.
type running struct{ d *daemon }

type runningKey struct{}

type testKey struct{}

// setup gives a script its root, whose path is short enough for sockets, and
// ends a daemon that it leaves.
func setup(e *testscript.Env) error {
	dir, err := os.MkdirTemp("", "udm")
	if err != nil {
		return err
	}
	r := new(running)
	e.Values[runningKey{}] = r
	e.Values[testKey{}] = e.T()
	e.Defer(func() {
		if r.d != nil {
			_ = r.d.kill()
		}
		_ = os.RemoveAll(dir)
	})
	bin := filepath.Join(dir, "bin")
	if err := errors.Join(os.Mkdir(bin, 0o700), os.Symlink(udm(), filepath.Join(bin, "udm")),
		os.Symlink(udm(), filepath.Join(bin, "dmsetup"))); err != nil {
		return err
	}
	e.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	e.Setenv("UDM_ROOT", filepath.Join(dir, "r"))
	e.Setenv("DIR", dir)
	return nil
}

func runningOf(ts *testscript.TestScript) *running { return ts.Value(runningKey{}).(*running) }

func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	d, err := start(ts.Getenv("UDM_ROOT"), args...)
	ts.Check(err)
	runningOf(ts).d = d
}

func cmdStop(ts *testscript.TestScript, neg bool, _ []string) {
	r := runningOf(ts)
	ts.Check(r.d.stop())
	r.d = nil
}

func cmdKill(ts *testscript.TestScript, neg bool, _ []string) {
	r := runningOf(ts)
	ts.Check(r.d.kill())
	r.d = nil
}

// cmdQuickstart makes what quickstart prints the output of the command.
func cmdQuickstart(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		args = []string{"--dir", filepath.Join(ts.Getenv("DIR"), "q")}
	}
	cmd := exec.Command(udm(), append([]string{"quickstart"}, args...)...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Stderr = ts.Stderr()
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	d := &daemon{cmd: cmd, log: bufio.NewScanner(out)}
	runningOf(ts).d = d
	for d.log.Scan() {
		fmt.Fprintln(ts.Stdout(), d.log.Text())
		if strings.HasPrefix(d.log.Text(), "Press Ctrl-C to stop") {
			return
		}
	}
	ts.Fatalf("quickstart ended: %v", cmd.Wait())
}

func cmdInterrupt(ts *testscript.TestScript, neg bool, _ []string) {
	r := runningOf(ts)
	_, err := r.d.end(os.Interrupt)
	ts.Check(err)
	r.d = nil
}

func cmdNeed(ts *testscript.TestScript, neg bool, args []string) {
	need.Tools(ts.Value(testKey{}).(testing.TB), args...)
}

func cmdSparse(ts *testscript.TestScript, neg bool, args []string) {
	n, err := leaf.ParseSize(args[1])
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(errors.Join(f.Truncate(int64(n)*512), f.Close()))
}

func cmdGolden(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.Getenv("DIR")
	_, err := golden.Write(dir, args[0])
	ts.Check(err)
	sums, err := golden.Sums(args[0])
	ts.Check(err)
	var text strings.Builder
	for name, sum := range sums {
		fmt.Fprintln(&text, name, sum)
	}
	ts.Check(os.WriteFile(filepath.Join(dir, "sums"), []byte(text.String()), 0o600))
}

// state is all that a wrong command must not change.
func state(root string) (string, error) {
	c := ctl.NewClient(root)
	defer c.Close()
	ds, err := c.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithStatus, ctl.WithDeps}})
	var none *ctl.NotRunning
	if err != nil && !errors.As(err, &none) {
		return "", err
	}
	for i := range ds { // a client that has ended leaves, and an event comes, when the daemon notices
		ds[i].Event = 0
		ds[i].Opens -= ds[i].Holders["nbd"]
		delete(ds[i].Holders, "nbd")
	}
	text, err := json.Marshal(ds)
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(root, "devices", "*"))
	for _, f := range files {
		saved, rerr := os.ReadFile(f)
		text, err = append(append(append(text, f...), 0), saved...), errors.Join(err, rerr)
	}
	return string(text), err
}

func cmdWrong(ts *testscript.TestScript, _ bool, args []string) {
	refused(ts, args, 1, saysOneLine)
}

func cmdMisused(ts *testscript.TestScript, _ bool, args []string) {
	refused(ts, args, 2, saysUsage)
}

// saysUsage reports whether a text is what is wrong, and how the command is used.
func saysUsage(said string) bool {
	lines := strings.Split(said, "\n")
	return len(lines) == 4 && strings.HasPrefix(lines[0], "udm: ") && strings.HasPrefix(lines[1], "usage: udm ") && strings.HasPrefix(lines[2], "see udm ")
}

// refused runs udm, which must exit with a code, say what it has to, and change nothing.
func refused(ts *testscript.TestScript, args []string, code int, says func(string) bool) {
	root := ts.Getenv("UDM_ROOT")
	before, err := state(root)
	ts.Check(err)
	err = ts.Exec("udm", args[1:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		ts.Fatalf("udm %q: %v; want exit code %d", args[1:], err, code)
	}
	said := ts.ReadFile("stderr")
	if !says(said) {
		ts.Fatalf("udm %q does not say just that:\n%s", args[1:], said)
	}
	if !regexp.MustCompile(args[0]).MatchString(said) {
		ts.Fatalf("udm %q: %q does not match %s", args[1:], said, args[0])
	}
	after, err := state(root)
	ts.Check(err)
	if after != before {
		ts.Fatalf("udm %q changed\n%s\nto\n%s", args[1:], before, after)
	}
}

func saysOneLine(text string) bool {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if n := len(lines); n == 2 && (lines[1] == "Command failed." || lines[1] == "Couldn't process command line.") {
		lines = lines[:1]
	}
	return len(lines) == 1 && lines[0] != ""
}

// command is udm with arguments for the daemon of a root.
func command(root string, args ...string) *exec.Cmd {
	return exec.Command(udm(), append([]string{"--root", root}, args...)...)
}
