//go:build unix

package conform

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Host is a device mapper to ask: the kernel's, or udm.
type Host interface {
	// AddDisk makes a disk and returns its path. The name is that of the script and the disk, "linear.a".
	AddDisk(name string, size int64, block int) (path string, err error)
	// Number returns the device number ("7:0") by which the device mapper calls a disk now, empty if it has none.
	Number(path string) (string, error)
	// Dmsetup runs dmsetup until ctx ends.
	Dmsetup(ctx context.Context, args []string, stdin string) (Exit, error)
	// Open opens a disk by its path, or a device-mapper device by its name.
	Open(dev string) (Device, error)
	// Log returns what the device mapper logged since the last call; it is recorded and not compared.
	Log() []string
	// Reset removes all devices and disks.
	Reset() error
}

// Exit is how a program ended.
type Exit struct {
	Code           int
	Stdout, Stderr string
}

// Device is an open disk or device-mapper device. Offsets and lengths are bytes and multiples of its logical block size.
// Errors unwrap to a syscall.Errno.
type Device interface {
	Read(buf []byte, off int64) error
	Write(buf []byte, off int64) error
	Discard(off, n int64) error
	Zero(off, n int64) error
	Flush() error
	Limits() (Limits, error)
	Close() error
}

// Limits are the properties of a device that every way to reach it can tell.
type Limits struct {
	Sectors  int64
	Block    int // bytes
	ReadOnly bool
	Discard  bool
}

// Whatever has not ended after so many ticks answers "hangs". The runner counts ticks that it has seen: on a machine that is busy
// with other things it sees them late, as the command gets its processor late.
const (
	tick         = 20 * time.Millisecond
	commandTicks = 10_000
)

// patience is how often "eventually" looks, a tick apart.
const patience = 3000

// runner is the state of one run of one script.
type runner struct {
	host    Host
	script  string
	disks   map[string]string // name → path
	opened  map[string]Device
	pending []chan []string // answers of "&" commands, oldest first
}

// Run runs a script on a host and leaves the host empty. The error tells of trouble with the host, not of a failed command.
func Run(host Host, s Script) ([]Answer, error) {
	r := &runner{host: host, script: s.Name, disks: map[string]string{}, opened: map[string]Device{}}
	host.Log()
	var answers []Answer
	var err error
	for _, line := range s.Lines {
		a := Answer{Line: line}
		if a.Output, err = r.run(line.Words, line.Stdin); err != nil {
			err = fmt.Errorf("%s:%d: %s: %w", s.Name, line.No, line.Text, err)
			break
		}
		a.Log = host.Log()
		answers = append(answers, a)
	}
	for _, d := range r.opened {
		_ = d.Close()
	}
	return answers, errors.Join(err, host.Reset())
}

// run executes one command and returns its answer.
func (r *runner) run(words []string, stdin string) ([]string, error) {
	args := words[1:]
	switch words[0] {
	case "disk":
		return nil, r.disk(args)
	case "dmsetup":
		return r.dmsetup(args, stdin)
	case "&":
		return nil, r.start(args, stdin)
	case "join":
		return r.join()
	case "slow":
		return r.slow(args, stdin)
	case "eventually":
		return r.eventually(args, stdin)
	case "open", "close":
		return r.keep(words[0], args)
	}
	return r.data(words[0], args)
}

func (r *runner) disk(args []string) error {
	if len(args) < 2 || len(args) > 3 {
		return errors.New("want: disk NAME SIZE [BLOCK]")
	}
	size, err := parseSize(args[1])
	if err != nil {
		return err
	}
	block := SectorSize
	if len(args) == 3 {
		if block, err = strconv.Atoi(args[2]); err != nil {
			return err
		}
	}
	r.disks[args[0]], err = r.host.AddDisk(r.script+"."+args[0], size, block)
	return err
}

func parseSize(s string) (int64, error) {
	unit := int64(1)
	switch {
	case strings.HasSuffix(s, "K"):
		unit = 1 << 10
	case strings.HasSuffix(s, "M"):
		unit = 1 << 20
	}
	n, err := strconv.ParseInt(strings.TrimRight(s, "KM"), 10, 64)
	return n * unit, err
}

var diskRef = regexp.MustCompile(`\$[a-z][a-z0-9]*`)

// expand replaces $NAME by the disk's path.
func (r *runner) expand(s string) string {
	return diskRef.ReplaceAllStringFunc(s, func(ref string) string {
		if path, ok := r.disks[ref[1:]]; ok {
			return path
		}
		return ref
	})
}

func (r *runner) dmsetup(args []string, stdin string) ([]string, error) {
	ctx, cancel := limited()
	defer cancel()
	expanded := make([]string, len(args))
	for i, a := range args {
		expanded[i] = r.expand(a)
	}
	e, err := r.host.Dmsetup(ctx, expanded, r.expand(stdin))
	if ctx.Err() != nil {
		return []string{"hangs"}, nil
	}
	if err != nil {
		return nil, err
	}
	stdout := e.Stdout
	if strings.Contains(strings.Join(args, " "), "@stats_print") {
		stdout = maskTimes(stdout)
	}
	out, err := r.normalise(stdout)
	return append(out, exitLines(e)...), err
}

// start runs a command beside the following ones.
func (r *runner) start(words []string, stdin string) error {
	done := make(chan []string, 1)
	r.pending = append(r.pending, done)
	go func() {
		out, err := r.run(words, stdin)
		if err != nil {
			out = []string{"broken: " + err.Error()}
		}
		done <- out
	}()
	return nil
}

func (r *runner) join() ([]string, error) {
	if len(r.pending) == 0 {
		return nil, errors.New("nothing was started")
	}
	done := r.pending[0]
	r.pending = r.pending[1:]
	ctx, cancel := limited()
	defer cancel()
	select {
	case out := <-done:
		return out, nil
	case <-ctx.Done():
		return []string{"hangs"}, nil
	}
}

// limited gives a context that ends after commandTicks.
func limited() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		ticks := time.NewTicker(tick)
		defer ticks.Stop()
		for range commandTicks {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
		}
	}()
	return ctx, cancel
}

func (r *runner) slow(args []string, stdin string) ([]string, error) {
	ms, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	out, err := r.run(args[1:], stdin)
	if time.Since(begin) >= time.Duration(ms)*time.Millisecond {
		return append(out, "late"), err
	}
	return append(out, "early"), err
}

// eventually repeats a command until a line of its answer is as wanted, and gives the last answer.
func (r *runner) eventually(args []string, stdin string) ([]string, error) {
	if len(args) < 2 {
		return nil, errors.New("want: eventually TEXT COMMAND")
	}
	for looks := 1; ; looks++ {
		out, err := r.run(args[1:], stdin)
		wanted := slices.ContainsFunc(out, func(l string) bool { return strings.TrimRight(l, " $") == args[0] })
		if err != nil || wanted || looks == patience {
			return out, err
		}
		time.Sleep(tick) // whom it waits for tells nobody
	}
}

// errorLine names the errno of a data command's error.
func errorLine(err error) ([]string, error) {
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &errno):
		return []string{"error " + unix.ErrnoName(errno)}, nil
	}
	return nil, err
}
