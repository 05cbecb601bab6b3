package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"

	"udm/ctl"
	"udm/dm"
)

// loopJob is work on a loop device, of drivers/block/loop.c. A process of its own
// does it: the daemon serves the file below, and must not wait for itself.
type loopJob struct {
	Do       string `json:"do"`
	File     string `json:"file"`
	Path     string `json:"path"`               // of the block device; of attach: the one to take if it is free, or ""
	ReadOnly bool   `json:"readOnly,omitempty"` // attach
	Block    uint32 `json:"block,omitempty"`    // attach; bytes of a logical block
	Force    bool   `json:"force,omitempty"`    // detach, also when it is in use: it goes when its last user has gone
}

// What a loopJob can do.
const (
	attachLoop  = "attach"  // answers the path
	refreshLoop = "refresh" // lets it see the size of its file
	detachLoop  = "detach"
)

// loopDone is what became of a loopJob.
type loopDone struct {
	Path   string     `json:"path,omitempty"`
	Unused bool       `json:"unused,omitempty"` // the block device is not, or no more, on the file
	Error  *ctl.Error `json:"error,omitempty"`
}

// Helper does one job for a daemon, which it reads from in and answers to out: the
// whole of the process that [Config.Helper] starts.
func Helper(in io.Reader, out io.Writer) error {
	var j loopJob
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return err
	}
	var done loopDone
	var err error
	switch j.Do {
	case attachLoop:
		done.Path, err = j.attach()
	case refreshLoop:
		err = j.refresh()
	case detachLoop:
		err = j.detach()
	default:
		return fmt.Errorf("no job is named %q", j.Do)
	}
	if done.Unused = errors.Is(err, errUnused); err != nil && !done.Unused {
		done.Error = ctl.NewError(err)
	}
	return json.NewEncoder(out).Encode(done)
}

// loop has a job done. errUnused: the block device is not, or no more, ours.
func (f *files) loop(j loopJob) (path string, err error) {
	if len(f.helper) == 0 {
		return "", dm.Errorf(syscall.ENOTSUP, "this daemon cannot attach devices")
	}
	in, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(f.helper[0], f.helper[1:]...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &errs
	out, err := cmd.Output()
	var done loopDone
	if err == nil {
		err = json.Unmarshal(out, &done)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w %s", cmd, err, bytes.TrimSpace(errs.Bytes()))
	case done.Unused:
		return "", errUnused
	case done.Error != nil:
		return "", done.Error
	}
	return done.Path, nil
}
