//go:build linux

package watchdog

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestHang ends what sleeps and what runs for ever, with what it has started.
func TestHang(t *testing.T) {
	for name, script := range map[string]string{
		"asleep":    "sleep 100000",
		"busy":      "while :; do :; done",
		"its child": "sh -c 'while :; do :; done' & wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("sh", "-c", script)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			err := Wait(cmd, time.Second)
			var hang *Hang
			if !errors.As(err, &hang) {
				t.Errorf("error %v, want a hang", err)
			}
		})
	}
}

// TestEnds: what ends by itself is let alone.
func TestEnds(t *testing.T) {
	if err := Run(exec.Command("true"), time.Minute); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := Run(exec.Command("false"), time.Minute); !errors.As(err, &exit) {
		t.Errorf("error %v, want the exit code", err)
	}
}

func TestOwnTime(t *testing.T) {
	for _, c := range []struct {
		name        string
		before, now sample
		want        time.Duration
	}{
		{"it runs", sample{true, time.Second, true}, sample{true, 2 * time.Second, true}, time.Second},
		{"it waits for a processor", sample{true, time.Second, true}, sample{true, time.Second, true}, 0},
		{"it sleeps", sample{true, time.Second, false}, sample{true, time.Second, false}, tick},
		{"it ran and sleeps", sample{true, time.Second, true}, sample{true, time.Minute, false}, 59 * time.Second},
		{"a child is gone", sample{true, 2 * time.Second, true}, sample{true, time.Second, true}, 0},
		{"all are gone", sample{true, 2 * time.Second, true}, sample{}, 0},
	} {
		if got := ownTime(c.before, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestLook(t *testing.T) {
	all := map[int]process{1: {1, 0, 0}, 5: {5, 1, 0}, 6: {6, 5, 0}, 7: {7, 6, 0}, 8: {8, 1, 0}}
	for pid, want := range map[int]bool{5: true, 6: true, 7: true, 8: false, 1: false, 9: false} {
		if got := below(all, pid, 5); got != want {
			t.Errorf("%d is below 5: %v", pid, got)
		}
	}
}
