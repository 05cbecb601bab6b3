// Package watchdog ends programs that hang, on machines that are as busy as they
// like. It does not look at a clock: what counts is a program's own time, the time
// in which it ran, or slept so that nothing kept it from going on. The time in
// which it wanted to run and others had the processors does not count. A limit of
// own time is therefore as good beside twenty busy processes as on an idle machine.
//
// Where there is no /proc nothing is ended.
package watchdog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// A Hang is the error of a program that was ended.
type Hang struct {
	Program string
	Limit   time.Duration
}

func (h *Hang) Error() string {
	return fmt.Sprintf("%s hangs: it was killed after %v of its own time", h.Program, h.Limit)
}

// Wait waits for a command that was started, and kills it when it hangs.
func Wait(cmd *exec.Cmd, limit time.Duration) error {
	release := Guard(cmd, limit)
	err := cmd.Wait()
	return errors.Join(release(), err)
}

// Run runs a command that works with other processes of the test. All of them are
// watched, since it sleeps while those wait for a processor.
func Run(cmd *exec.Cmd, limit time.Duration) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	release := guard(cmd, limit, os.Getpid())
	err := cmd.Wait()
	return errors.Join(release(), err)
}

// Guard kills a command that was started, with its process group if it leads one,
// when it and the processes that it has started have had the limit from now on.
// The function that it returns ends that, and returns a *Hang if it was killed.
func Guard(cmd *exec.Cmd, limit time.Duration) (release func() error) {
	return guard(cmd, limit, cmd.Process.Pid)
}

func guard(cmd *exec.Cmd, limit time.Duration, root int) (release func() error) {
	ended := make(chan struct{})
	hung := make(chan error, 1)
	go func() { hung <- watch(cmd, limit, root, ended) }()
	return func() error {
		close(ended)
		return <-hung
	}
}

// tick is what a look counts that finds everything asleep. A look costs ten
// milliseconds of a processor on a machine with a few hundred processes.
const tick = 5 * time.Second

func watch(cmd *exec.Cmd, limit time.Duration, root int, ended <-chan struct{}) error {
	looks := time.NewTicker(tick)
	defer looks.Stop()
	var had time.Duration
	for before := look(root); ; {
		select {
		case <-ended:
			return nil
		case <-looks.C:
		}
		now := look(root)
		if had += ownTime(before, now); had >= limit {
			kill(cmd)
			return &Hang{cmd.Path, limit}
		}
		before = now
	}
}

// sample is what processes have done and what they are at.
type sample struct {
	seen bool          // the processes could be looked at
	used time.Duration // of processors, so far
	runs bool          // one of them runs or wants to
}

// ownTime is what is counted between two looks.
func ownTime(before, now sample) time.Duration {
	if now.seen && !now.runs {
		return max(tick, now.used-before.used)
	}
	return max(0, now.used-before.used)
}
