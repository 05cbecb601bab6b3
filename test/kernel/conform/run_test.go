//go:build unix

package conform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// fakeHost is a device mapper of one device x over one disk a, with a fault to plant.
type fakeHost struct {
	status string
	errno  string
	wrong  int // index of a byte of the device that reads one higher; negative for none
	disk   fakeDisk
}

func newFake() *fakeHost {
	return &fakeHost{status: "0 16 linear 7:0 0", errno: "Invalid argument", wrong: -1}
}

func (h *fakeHost) AddDisk(_ string, size int64, _ int) (string, error) {
	h.disk.data = make([]byte, size)
	return "/dev/loop0", nil
}

func (h *fakeHost) Number(path string) (string, error) {
	if path == "/dev/loop1" {
		return "7:1", nil
	}
	return "7:0", nil
}

func (h *fakeHost) Dmsetup(_ context.Context, args []string, stdin string) (Exit, error) {
	switch args[0] {
	case "status":
		return Exit{Stdout: h.status + "\n"}, nil
	case "create":
		return Exit{Stdout: strings.Join(args, "|") + stdin}, nil
	case "message":
		return Exit{Stdout: "0+16 1 2 3 444 5 6 7 888 9 10 11 12 13 4:5\n"}, nil
	}
	return Exit{Code: 1, Stderr: "device-mapper: remove ioctl on y  failed: " + h.errno + "\nCommand failed.\n"}, nil
}

func (h *fakeHost) Open(dev string) (Device, error) {
	if dev == "nosuch" {
		return nil, syscall.ENOENT
	}
	h.disk.wrong = h.wrong
	return &h.disk, nil
}

func (h *fakeHost) Log() []string { return []string{"logged"} }
func (h *fakeHost) Reset() error  { return nil }

// fakeDisk is a disk in memory.
type fakeDisk struct {
	mu    sync.Mutex
	data  []byte // guarded by mu
	wrong int
}

func (d *fakeDisk) Read(buf []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(buf, d.data[off:])
	if i := d.wrong - int(off); d.wrong >= 0 && i >= 0 && i < len(buf) {
		buf[i]++
	}
	return nil
}

func (d *fakeDisk) Write(buf []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[off:], buf)
	return nil
}

func (d *fakeDisk) Discard(_, _ int64) error { return syscall.EOPNOTSUPP }
func (d *fakeDisk) Zero(off, n int64) error  { return d.Write(make([]byte, n), off) }
func (d *fakeDisk) Flush() error             { return nil }
func (d *fakeDisk) Close() error             { return nil }
func (d *fakeDisk) Limits() (Limits, error) {
	return Limits{Sectors: int64(len(d.data) / SectorSize), Block: SectorSize, ReadOnly: true, Discard: true}, nil
}

const fakeScript = `# what the runner does
needs linear zero
disk a 64K
dmsetup create x --table "0 16 linear $a 0" '' $nosuch
	0 16 linear $a 0
dmsetup status x
dmsetup remove y
dmsetup message x 0 @stats_print 0
write x 2 3 7
zero x 3 1
read x 0 8
peek $a 1024 18
poke $a 1026 ff00
read x 2 1
discard x 0 8
flush x
limits x
read nosuch 0 1
open x
close x
close x
& dmsetup status x
join
slow 0 flush x
slow 100000 flush x
eventually "sectors 128, block 512, read-only true, discard false" limits x
`

const fakeAnswers = `# kernel fake, script HASH
> disk a 64K
~ logged
> dmsetup create x --table "0 16 linear $a 0" '' $nosuch
>	0 16 linear $a 0
  create|x|--table|0 16 linear /dev/loop0 0||$nosuch0 16 linear /dev/loop0 0
~ logged
> dmsetup status x
  0 16 linear $a 0
~ logged
> dmsetup remove y
  exit 1
  error Invalid argument
~ logged
> dmsetup message x 0 @stats_print 0
  0+16 1 2 3 * 5 6 7 * 9 * * * * 4:5
~ logged
> write x 2 3 7
~ logged
> zero x 3 1
~ logged
> read x 0 8
  0+2 zero
  2+1 data 7@2
  3+1 zero
  4+1 data 7@4
  5+3 zero
~ logged
> peek $a 1024 18
  80 00 00 00 00 00 07 00 81 00 00 00 00 00 07 00
  82 00
~ logged
> poke $a 1026 ff00
~ logged
> read x 2 1
  2+1 other HASHED
~ logged
> discard x 0 8
  error ENOTSUP
~ logged
> flush x
~ logged
> limits x
  sectors 128, block 512, read-only true, discard false
~ logged
> read nosuch 0 1
  error ENOENT
~ logged
> open x
~ logged
> close x
~ logged
> close x
  error not open
~ logged
> & dmsetup status x
~ logged
> join
  0 16 linear $a 0
~ logged
> slow 0 flush x
  late
~ logged
> slow 100000 flush x
  early
~ logged
> eventually "sectors 128, block 512, read-only true, discard false" limits x
  sectors 128, block 512, read-only true, discard false
~ logged
`

// runFake runs the fake script on a host.
func runFake(t *testing.T, h Host) (Script, []Answer) {
	t.Helper()
	s, err := Parse("fake", fakeScript)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := Run(h, s)
	if err != nil {
		t.Fatal(err)
	}
	return s, answers
}

func TestRun(t *testing.T) {
	s, answers := runFake(t, newFake())
	if s.About != "what the runner does" || !slices.Equal(s.Needs, []string{"linear", "zero"}) {
		t.Errorf("script %+v", s)
	}
	got := strings.Split(Golden("fake", s, answers), "\n")
	want := strings.Split(strings.Replace(fakeAnswers, "script HASH", "script "+s.Hash, 1), "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) {
			t.Fatalf("%d lines, want %d", len(got), len(want))
		}
		if strings.HasSuffix(want[i], "HASHED") && strings.Contains(got[i], "other ") {
			continue
		}
		if got[i] != want[i] {
			t.Errorf("line %d: %q, want %q", i+1, got[i], want[i])
		}
	}
}

// TestFaultsAreCaught plants a wrong status word, a wrong errno and a one-byte difference of content.
func TestFaultsAreCaught(t *testing.T) {
	s, right := runFake(t, newFake())
	golden, err := ParseGolden(s, Golden("fake", s, right))
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(s, golden, right, CompareOptions{}); len(d) != 0 {
		t.Fatalf("equal answers differ: %v", d)
	}
	faults := []struct {
		name    string
		plant   func(*fakeHost)
		where   string // script line of the first difference
		differs int
	}{
		{"status word", func(h *fakeHost) { h.status = "0 16 linean 7:0 0" }, "fake.txt:6: dmsetup status x", 2},
		{"status blank", func(h *fakeHost) { h.status += " " }, "fake.txt:6: dmsetup status x", 2},
		{"errno", func(h *fakeHost) { h.errno = "No such device" }, "fake.txt:7: dmsetup remove y", 1},
		{"byte in zeroes", func(h *fakeHost) { h.wrong = 511 }, "fake.txt:11: read x 0 8", 1},
		{"byte in data", func(h *fakeHost) { h.wrong = 4*512 + 100 }, "fake.txt:11: read x 0 8", 1},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			h := newFake()
			f.plant(h)
			_, got := runFake(t, h)
			diffs := Compare(s, golden, got, CompareOptions{WantName: "kernel", GotName: "udm"})
			if len(diffs) != f.differs || !strings.HasPrefix(diffs[0], f.where) {
				t.Errorf("%d differences: %s", len(diffs), strings.Join(diffs, "\n"))
			}
		})
	}
}

func TestForgiven(t *testing.T) {
	s, err := Parse("s", "# about\ndiffers known\ndmsetup status x\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []Answer{{Line: s.Lines[0], Output: []string{"a"}}}
	got := []Answer{{Line: s.Lines[0], Output: []string{"b"}}}
	if d := Compare(s, want, got, CompareOptions{Forgive: true}); len(d) != 0 {
		t.Errorf("a known difference is told: %v", d)
	}
	if d := Compare(s, want, got, CompareOptions{}); len(d) != 1 {
		t.Errorf("%d differences where none is forgiven, want 1", len(d))
	}
	if d := Compare(s, want, want, CompareOptions{Forgive: true}); len(d) != 1 {
		t.Errorf("%d differences for a mark that is out of date, want 1", len(d))
	}
}

func TestParseErrors(t *testing.T) {
	for _, text := range []string{"", "disk a 1M\n", "# about\nnosuch\n", "# about\ndmsetup 'open\n", "# about\n\tinput of nothing\n"} {
		if _, err := Parse("bad", text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestParseGoldenErrors(t *testing.T) {
	s, err := Parse("s", "# about\nflush x\n")
	if err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("# kernel k, script %s\n", s.Hash)
	for _, text := range []string{head, "# kernel k, script 1\n> flush x\n", head + "> flush x\nrubbish\n", head + "> flush x\n> flush x\n"} {
		if _, err := ParseGolden(s, text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestNumbers(t *testing.T) {
	r := runner{host: newFake(), disks: map[string]string{"a": "/dev/loop0", "b": "/dev/loop1"}}
	for in, want := range map[string]string{
		"0 8 linear 7:0 0":                "0 8 linear $a 0",
		"2 dependencies\t: (7, 1) (7, 0)": "2 dependencies\t: ($b) ($a)",
		" `- (7:1)":                       " `- ($b)",
		"7:0 7:0 7:1":                     "$a $a $b",
		"17:0 7:01 7:0:3 7:10":            "17:0 7:01 7:0:3 7:10",
		"7:0,7:1\n":                       "$a,$b",
	} {
		got, err := r.normalise(in)
		if err != nil || got[0] != want {
			t.Errorf("%q becomes %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestErrorLine(t *testing.T) {
	if _, err := errorLine(errors.New("broken pipe to the host")); err == nil {
		t.Error("an error without errno counts as an answer")
	}
}
