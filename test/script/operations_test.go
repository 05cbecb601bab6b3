package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"udm/ctl"
	"udm/volume"
)

// slowly is a daemon with a device whose reads or writes take long, and an image.
type slowly struct {
	t     *testing.T
	dir   string
	root  string
	image []byte
}

func startSlowly(t *testing.T) (*slowly, *daemon) {
	dir := shortDir(t)
	s := &slowly{t, dir, filepath.Join(dir, "r"), bytes.Repeat([]byte("udm\n"), 4<<20)}
	for name, p := range map[string][]byte{"image": s.image, "disk": make([]byte, len(s.image))} {
		if err := os.WriteFile(s.file(name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s, startFor(t, s.root)
}

func (s *slowly) file(name string) string { return filepath.Join(s.dir, name) }

// disk makes a device, or gives it other delays, in milliseconds.
func (s *slowly) disk(command, name string, read, write int) {
	f := s.file("disk")
	run(s.t, s.root, command, name, "--table", fmt.Sprintf("0 %d delay %s 0 %d %s 0 %d", len(s.image)/512, f, read, f, write))
}

// begun starts a command and waits until its operation is under way.
func (s *slowly) begun(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := command(s.root, args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.until(func(operations int) bool { return operations > 0 })
	return cmd
}

// until waits for a number of operations that are under way.
func (s *slowly) until(enough func(operations int) bool) {
	s.t.Helper()
	s.untilAll(func(ops []volume.Operation) bool { return enough(len(ops)) })
}

func (s *slowly) untilAll(enough func(ops []volume.Operation) bool) {
	s.t.Helper()
	c := ctl.NewClient(s.root)
	defer c.Close()
	for {
		ops, err := c.Operations(context.Background())
		if err != nil {
			s.t.Fatal(err)
		}
		if enough(ops) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

func none(operations int) bool { return operations == 0 }

// restart ends the daemon, which must not give up anything, and waits for what goes
// on in the next one.
func (s *slowly) restart(d *daemon) {
	s.t.Helper()
	if err := d.stop(); err != nil {
		s.t.Fatal(err)
	}
	startFor(s.t, s.root)
	s.until(none)
}

func (s *slowly) holds(name string, want []byte) {
	s.t.Helper()
	got, err := os.ReadFile(s.file(name))
	if err != nil || !bytes.Equal(got, want) {
		s.t.Errorf("%s does not hold what it should, %v", name, err)
	}
}

// A daemon that is to end does so in the middle of a copy, and goes on with it when
// it is started again.
func TestEndDuringCopy(t *testing.T) {
	s, d := startSlowly(t)
	s.disk("create", "disk", 0, 200)
	cp := s.begun("cp", s.file("image"), "disk")
	s.restart(d)
	if cp.Wait() == nil {
		t.Error("the command says that the copy was over")
	}
	s.holds("disk", s.image)
}

// So it does in the middle of a rollback.
func TestEndDuringRollback(t *testing.T) {
	s, d := startSlowly(t)
	s.disk("create", "disk", 0, 0)
	run(t, s.root, "cp", s.file("image"), "disk")
	run(t, s.root, "snapshot", "disk", "before")
	if err := os.WriteFile(s.file("other"), bytes.Repeat([]byte("new\n"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, s.root, "cp", s.file("other"), "disk")
	s.disk("load", "disk-real", 0, 500)
	back := s.begun("rollback", "before")
	s.restart(d)
	_ = back.Wait() // it may have been over
	s.holds("disk", s.image)
	if out := run(t, s.root, "ls"); bytes.Contains([]byte(out), []byte("before")) {
		t.Errorf("the snapshot is still there:\n%s", out)
	}
}

// A command that is killed while it can be undone leaves nothing.
func TestKillCopyOut(t *testing.T) {
	s, _ := startSlowly(t)
	if err := os.WriteFile(s.file("disk"), s.image, 0o600); err != nil {
		t.Fatal(err)
	}
	s.disk("create", "disk", 500, 0)
	cp := s.begun("cp", "disk", s.file("out"))
	if err := cp.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if cp.Wait() == nil {
		t.Error("the command was over before it was killed")
	}
	s.until(none)
	if names, err := filepath.Glob(s.file("out*")); err != nil || len(names) > 0 {
		t.Errorf("there is %v, %v", names, err)
	}
	s.disk("load", "disk", 0, 0)
	run(t, s.root, "cp", "disk", s.file("out"))
	s.holds("out", s.image)
}

// A daemon that is killed in the middle of a flatten leaves nothing of it if it can be
// undone, and completes it otherwise. How far it is, is told.
func TestKillDuringFlatten(t *testing.T) {
	for name, undone := range map[string]bool{"vm": true, "disk": false} {
		t.Run(name, func(t *testing.T) {
			s, d := startSlowly(t)
			s.halves()
			run(t, s.root, "clone", "image", "vm")
			run(t, s.root, "dmsetup", "suspend", "rest")
			flatten := s.begun("flatten", name, s.file("out"))
			s.untilAll(func(ops []volume.Operation) bool {
				return ops[0].Done == half && ops[0].Total == uint64(len(s.image))
			})
			if err := d.kill(); err != nil {
				t.Fatal(err)
			}
			if flatten.Wait() == nil {
				t.Error("the command says that it was over")
			}
			startFor(t, s.root)
			if undone {
				s.until(none)
				if names, err := filepath.Glob(s.file("out*")); err != nil || len(names) > 0 {
					t.Errorf("there is %v, %v", names, err)
				}
			}
			run(t, s.root, "dmsetup", "resume", "rest")
			s.until(none)
			run(t, s.root, "cp", name, s.file("copy"))
			s.holds("copy", s.image)
		})
	}
}

// half is how much is copied at once.
const half = 32 << 20

// halves makes a disk, and an image to be cloned, of which one half is a file and the
// other a device; both are sparse. s.image is their content.
func (s *slowly) halves() {
	piece := bytes.Repeat([]byte("new\n"), 64<<10)
	s.image = make([]byte, 2*half)
	copy(s.image, piece)
	copy(s.image[half:], piece)
	for _, name := range []string{"first", "second"} {
		if err := errors.Join(os.WriteFile(s.file(name), piece, 0o600), os.Truncate(s.file(name), half)); err != nil {
			s.t.Fatal(err)
		}
	}
	run(s.t, s.root, "create", "rest", "--table", fmt.Sprintf("0 %d linear %s 0", half>>9, s.file("second")))
	table := fmt.Sprintf("0 %d linear %s 0\n%d %d linear /dev/mapper/rest 0", half>>9, s.file("first"), half>>9, half>>9)
	run(s.t, s.root, "create", "disk", "--table", table)
	run(s.t, s.root, "create", "image", "--readonly", "--table", table)
}
