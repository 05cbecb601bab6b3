//go:build unix

package kernel

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Program is the user-mode kernel, and ModuleDir holds its modules, one folder per kernel version.
const (
	Program   = "/usr/bin/linux"
	ModuleDir = "/usr/lib/uml/modules"
)

const (
	maxDisks       = 16 // ubda … ubdp
	defaultMemory  = 512
	defaultTimeout = time.Minute
)

// Options says what to boot.
type Options struct {
	// Disks are host files, at most 16, whose sizes are multiples of 512 bytes. They are opened for writing.
	Disks []string
	// Modules are loaded in this order before the script runs; nil means DefaultModules.
	Modules []string
	// Script is run by "sh -eu"; see the package comment for what it finds.
	Script string
	// Memory of the kernel in MiB; 0 means 512.
	Memory int
	// Timeout for the whole boot; 0 means a minute.
	Timeout time.Duration
	// Dir is the host folder that the script sees as $OUT; empty means a new one (Boot removes it with the test).
	Dir string
}

// DefaultModules give the targets linear, striped, error, zero, delay, flakey, snapshot, thin, dust, switch, unstriped and
// log-writes, and the loop driver.
var DefaultModules = []string{"dm-mod", "dm-zero", "dm-delay", "dm-flakey", "dm-snapshot", "dm-thin-pool", "dm-dust", "dm-switch", "dm-unstripe", "dm-log-writes", "loop"}

// Result is what a boot left behind.
type Result struct {
	Output  string // standard output and standard error of the script
	Exit    int    // the script's exit code
	Dir     string // the host folder that was $OUT
	Console string // what the kernel said
}

// Missing says in one line why no kernel can be booted here, or is empty.
func Missing() string {
	if _, err := os.Stat(Program); err != nil {
		return "no user-mode kernel: " + Program + " is missing (Debian: apt-get install user-mode-linux dmsetup)"
	}
	if _, err := Version(); err != nil {
		return err.Error()
	}
	return ""
}

// Version of the kernel, as its module folder is called.
func Version() (string, error) {
	dirs, err := filepath.Glob(filepath.Join(ModuleDir, "*", "modules.dep"))
	if err != nil {
		return "", err
	}
	if len(dirs) != 1 {
		return "", fmt.Errorf("%s holds modules of %d kernels, want exactly one", ModuleDir, len(dirs))
	}
	return filepath.Base(filepath.Dir(dirs[0])), nil
}

// Main is the TestMain of a package with tests that boot a kernel; they have Kernel in their names. Where no kernel can be booted it
// leaves them out and says so in one line. In CI (CI=true), or when they must run, they fail there.
func Main(m *testing.M, must func() bool) {
	flag.Parse()
	if why := Missing(); why != "" && !must() && os.Getenv("CI") != "true" {
		fmt.Fprintln(os.Stderr, "left out, the tests that boot a kernel:", why)
		skip := flag.Lookup("test.skip").Value
		_ = skip.Set(strings.TrimPrefix(skip.String()+"|Kernel", "|")) // a string takes any value
	}
	m.Run()
}

// Need fails the test where no kernel can be booted.
func Need(t testing.TB) {
	t.Helper()
	if why := Missing(); why != "" {
		t.Fatal(why)
	}
}

// Boot runs o.Script inside the kernel and fails the test unless it ends with exit code 0 in time.
func Boot(t testing.TB, o Options) Result {
	t.Helper()
	Need(t)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Output)
	}
	if r.Exit != 0 {
		t.Fatalf("script ended with exit code %d:\n%s", r.Exit, r.Output)
	}
	return r
}

// Run boots the kernel, runs o.Script and waits until every process is gone. The error is about the boot alone: a script
// that fails is told by Result.Exit. When the time is over or ctx ends, the error says so and Result holds what was
// printed until then.
func Run(ctx context.Context, o Options) (Result, error) {
	if len(o.Disks) > maxDisks {
		return Result{}, fmt.Errorf("%d disks, at most %d can be attached", len(o.Disks), maxDisks)
	}
	work, err := os.MkdirTemp("", "uml")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(work)
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "umlout"); err != nil {
			return Result{}, err
		}
	}
	args, err := prepare(work, &o)
	if err != nil {
		return Result{}, err
	}
	console, runErr := runGroup(ctx, o.Timeout, Program, args)
	return collect(work, o.Dir, console, runErr)
}

// prepare fills the work folder (module link, disk links, scripts) and returns the kernel's arguments. The disks are named through
// links because commas and colons in a ubd argument separate fields.
func prepare(work string, o *Options) ([]string, error) {
	version, err := Version()
	if err != nil {
		return nil, err
	}
	if o.Modules == nil {
		o.Modules = DefaultModules
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	args := []string{
		"mem=" + strconv.Itoa(o.Memory) + "M", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "panic=-1",
		"con=null", "con0=fd:0,fd:1", "uml_dir=" + work, "init=" + filepath.Join(work, "init"),
	}
	links := map[string]string{"lib/modules/" + version: filepath.Join(ModuleDir, version), "out": o.Dir}
	for i, d := range o.Disks {
		name := "disk" + strconv.Itoa(i)
		links[name] = d
		args = append(args, fmt.Sprintf("ubd%d=%s", i, filepath.Join(work, name)))
	}
	if err := makeLinks(work, links); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(work, "script"), []byte(o.Script), 0o600); err != nil {
		return nil, err
	}
	return args, os.WriteFile(filepath.Join(work, "init"), []byte(initScript(work, o)), 0o700)
}

// makeLinks makes one symbolic link below work for each name, to the absolute form of its destination.
func makeLinks(work string, links map[string]string) error {
	for name, dest := range links {
		abs, err := filepath.Abs(dest)
		if err != nil {
			return err
		}
		if _, err := os.Stat(abs); err != nil {
			return err
		}
		path := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.Symlink(abs, path); err != nil {
			return err
		}
	}
	return nil
}

// initScript is the text of process 1. The exit code goes to a file, since the exit code of the kernel says nothing; the
// machine is switched off through sysrq because poweroff belongs to whatever init system the host has.
func initScript(work string, o *Options) string {
	var b strings.Builder
	b.WriteString(`#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DM_DISABLE_UDEV=1 HOME=/run/home TMPDIR=/run/home
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmpfs /run
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir /run/home /run/out /run/work
`)
	fmt.Fprintf(&b, "mount -t hostfs -o %s none /run/work\nmount -t hostfs -o %s none /run/out\n", work, absolute(o.Dir))
	b.WriteString("cd /run/home\nexport OUT=/run/out")
	for i := range o.Disks {
		fmt.Fprintf(&b, " D%d=/dev/ubd%c", i, 'a'+i)
	}
	b.WriteString("\n{\n")
	for _, m := range o.Modules {
		fmt.Fprintf(&b, "modprobe -d /run/work %s || echo no module %s\n", m, m)
	}
	b.WriteString(`sh -eu /run/work/script
echo $? >/run/work/exit
} >/run/work/output 2>&1 </dev/null
sync
echo o >/proc/sysrq-trigger
while :; do sleep 1; done
`)
	return b.String()
}

// absolute is filepath.Abs for a path that makeLinks has seen already.
func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}

// collect reads what the script left in the work folder.
func collect(work, dir string, console []byte, runErr error) (Result, error) {
	r := Result{Dir: dir, Console: string(console), Exit: -1}
	output, _ := os.ReadFile(filepath.Join(work, "output"))
	r.Output = string(output)
	code, err := os.ReadFile(filepath.Join(work, "exit"))
	if runErr != nil {
		return r, fmt.Errorf("boot: %w\nconsole: %s", runErr, r.Console)
	}
	if err != nil {
		return r, fmt.Errorf("boot: the script did not come to its end\nconsole: %s", r.Console)
	}
	r.Exit, err = strconv.Atoi(strings.TrimSpace(string(code)))
	return r, err
}

// runGroup runs the program as the leader of a process group, for at most the given time, and returns when none of the group is
// left. The program's own exit code says nothing, so only the time limit and a failed start are errors.
func runGroup(ctx context.Context, limit time.Duration, program string, args []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var console bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &console, &console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	unguard, err := guard(cmd.Process.Pid)
	if err != nil {
		cancel()
	}
	_ = cmd.Wait()
	err = errors.Join(err, reapGroup(cmd.Process.Pid))
	unguard()
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("killed after %v: %w", limit, ctx.Err())
	}
	return console.Bytes(), err
}

// guard kills the group if this process dies before it calls the function that guard returns: a shell waits on a pipe from here, and
// reads its end in both cases. Without it the kernel's helper processes would outlive a test that is killed.
func guard(group int) (func(), error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r _; kill -s KILL -- -"$0"`, strconv.Itoa(group))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return func() {}, err
	}
	if err := cmd.Start(); err != nil {
		return func() {}, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = pipe.Close()
		_ = cmd.Wait()
	}, nil
}

// reapGroup kills the process group until none of it is left.
func reapGroup(group int) error {
	for range 500 {
		if err := syscall.Kill(-group, syscall.SIGKILL); errors.Is(err, syscall.ESRCH) {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // the members die on their own; there is nothing to wait on
	}
	return fmt.Errorf("process group %d does not die", group)
}
