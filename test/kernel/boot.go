//go:build unix

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/test/need"
	"udm/test/watchdog"
)

// Program is the user-mode kernel, and ModuleDir holds its modules, one folder per kernel version.
const (
	Program   = "/usr/bin/linux"
	ModuleDir = "/usr/lib/uml/modules"
)

const (
	maxDisks      = 16 // ubda … ubdp
	defaultMemory = 512
	// defaultLimit is ten times what the longest boot of the tests needs: its timer takes more of its own time on a busy host.
	defaultLimit = 30 * time.Minute
)

// Options says what to boot.
type Options struct {
	// Disks are host files, at most 16, whose sizes are multiples of 512 bytes. They are opened for writing.
	Disks []string
	// Modules are loaded in this order before the script runs; nil means DefaultModules.
	Modules []string
	// Script is run by "sh -eu"; see the package comment for what it finds.
	Script string
	// Args are further arguments of the kernel.
	Args []string
	// Machine is the folder of another kernel, for virtual machines, which debian-kernel.sh prints; empty: the user-mode kernel.
	// Modules are its own, and none by default; its disks are /dev/vda and so on.
	Machine string
	// Memory of the kernel in MiB; 0 means 512.
	Memory int
	// Limit of the boot's own time, see package watchdog; 0 means half an hour.
	Limit time.Duration
	// Dir is the host folder that the script sees as $OUT; empty means a new one (Boot removes it with the test).
	Dir string
}

// DefaultModules give the targets linear, striped, error, zero, delay, flakey, snapshot, thin, dust, switch, unstriped,
// log-writes, era, clone, mirror, cache, writecache, multipath, verity, integrity and crypt, with hashes and ciphers, which have to be there before them, and the loop driver.
var DefaultModules = []string{"dm-mod", "dm-zero", "dm-delay", "dm-flakey", "dm-snapshot", "dm-thin-pool", "dm-dust", "dm-switch", "dm-unstripe", "dm-log-writes", "dm-cache", "dm-cache-smq", "dm-era", "dm-clone", "dm-mirror", "dm-writecache", "dm-multipath", "dm-round-robin", "dm-queue-length", "dm-service-time", "loop",
	"hmac", "cbc", "xts", "ecb", "essiv", "twofish_generic", "ctr", "ghash-generic", "gcm", "chacha_generic", "poly1305_generic", "chacha20poly1305", "authenc", "nhpoly1305", "adiantum", "dm-crypt", "sha512_generic", "dm-verity", "dm-integrity"}

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

// Need skips the test with -short, and where no kernel can be booted; in CI it fails there.
func Need(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a kernel: make test-kernel")
	}
	if why := Missing(); why != "" {
		need.Missing(t, why)
	}
}

// Boot runs o.Script inside the kernel and fails the test unless it ends with exit code 0. A kernel that fails by itself is booted
// again, once.
func Boot(t testing.TB, o Options) (r Result) {
	t.Helper()
	Need(t)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	err := again(t, append(slices.Clone(o.Disks), o.Dir), func() (err error) {
		r, err = Run(context.Background(), o)
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Output)
	}
	if r.Exit != 0 {
		t.Fatalf("script ended with exit code %d:\n%s", r.Exit, r.Output)
	}
	return r
}

// Run boots the kernel, runs o.Script and waits until every process is gone. The error is about the boot alone: a script
// that fails is told by Result.Exit. When the kernel hangs, fails by itself (an *OwnFault), or ctx ends, the error says so and
// Result holds what was printed until then.
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
	o.defaults()
	program, args, err := o.command(work)
	if err == nil {
		err = prepare(work, &o)
	}
	if err != nil {
		return Result{}, err
	}
	console, runErr := runGroup(ctx, o.Limit, program, args)
	return collect(work, o.Dir, console, runErr)
}

func (o *Options) defaults() {
	if o.Modules == nil && o.Machine == "" {
		o.Modules = DefaultModules
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	if o.Limit == 0 {
		o.Limit = defaultLimit
	}
}

// command returns the program that runs the kernel, and its arguments.
func (o *Options) command(work string) (program string, args []string, err error) {
	if o.Machine != "" {
		return o.machine(work)
	}
	args = []string{
		"mem=" + strconv.Itoa(o.Memory) + "M", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "panic=-1",
		"con=null", "con0=fd:0,fd:1", "uml_dir=" + work, "init=" + filepath.Join(work, "init"),
	}
	for i := range o.Disks {
		args = append(args, fmt.Sprintf("ubd%d=%s", i, diskLink(work, i)))
	}
	return Program, append(args, o.Args...), nil
}

// diskLink is the path by which the kernel opens a disk, because commas and colons in a ubd argument separate fields.
func diskLink(work string, i int) string { return filepath.Join(work, "disk"+strconv.Itoa(i)) }

// prepare fills the work folder: module link, disk links, scripts.
func prepare(work string, o *Options) error {
	links := map[string]string{"out": o.Dir}
	for i, d := range o.Disks {
		links[filepath.Base(diskLink(work, i))] = d
	}
	version, modules, err := o.modules()
	if err != nil {
		return err
	}
	links["lib/modules/"+version] = modules
	if err := makeLinks(work, links); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "script"), []byte(o.Script), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(work, "init"), []byte(initScript(work, o)), 0o700)
}

// modules returns the kernel's version and the folder of its modules.
func (o *Options) modules() (version, folder string, err error) {
	if o.Machine == "" {
		version, err = Version()
		return version, filepath.Join(ModuleDir, version), err
	}
	version, err = machineVersion(o.Machine)
	return version, filepath.Join(o.Machine, "lib", "modules", version), err
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
	disk := "/dev/ubd"
	if o.Machine == "" {
		fmt.Fprintf(&b, "mount -t hostfs -o %s none /run/work\nmount -t hostfs -o %s none /run/out\n", work, absolute(o.Dir))
	} else {
		disk = "/dev/vd"
		b.WriteString(mountsOfMachine(work, absolute(o.Dir)))
	}
	b.WriteString("cd /run/home\nexport OUT=/run/out")
	for i := range o.Disks {
		fmt.Fprintf(&b, " D%d=%s%c", i, disk, 'a'+i)
	}
	b.WriteString("\n{\n")
	if len(o.Modules) > 0 {
		fmt.Fprintf(&b, "modprobe -a -d /run/work %s\n", strings.Join(o.Modules, " ")) // names those that are missing
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
	if why := ownFaults.FindString(r.Console); why != "" && !errors.Is(runErr, context.Canceled) {
		return r, &OwnFault{why, r.Console}
	}
	if runErr != nil {
		return r, fmt.Errorf("boot: %w\nconsole: %s", runErr, r.Console)
	}
	if err != nil {
		return r, fmt.Errorf("boot: the script did not come to its end\nconsole: %s", r.Console)
	}
	r.Exit, err = strconv.Atoi(strings.TrimSpace(string(code)))
	return r, err
}

// runGroup runs the program as the leader of a process group until it ends or hangs, and returns when none of the group is left. The
// program's own exit code says nothing, so only a hang, the end of ctx and a failed start are errors.
func runGroup(ctx context.Context, limit time.Duration, program string, args []string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
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
	var hang *watchdog.Hang
	if errors.As(watchdog.Wait(cmd, limit), &hang) {
		err = errors.Join(err, hang)
	}
	err = errors.Join(err, ctx.Err(), reapGroup(cmd.Process.Pid))
	unguard()
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
	for range 10_000 {
		if err := syscall.Kill(-group, syscall.SIGKILL); errors.Is(err, syscall.ESRCH) {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // the members die on their own; there is nothing to wait on
	}
	return fmt.Errorf("process group %d does not die", group)
}
