package attach

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"

	"udm/ctl"
	"udm/dm"
)

// kernelJob is work on a block device of drivers/block/loop.c or nbd.c. A process of
// its own does it: the daemon serves what is below, and must not wait for itself.
type kernelJob struct {
	Do       string `json:"do"`
	Driver   string `json:"driver"`             // loop or nbd
	File     string `json:"file"`               // below a loop device; for nbd, only a name: its backend
	Path     string `json:"path"`               // of the block device; of attach: the one to take if it is free, or ""
	ReadOnly bool   `json:"readOnly,omitempty"` // attach by loop
	Block    uint32 `json:"block,omitempty"`    // attach; bytes of a logical block
	Flags    uint16 `json:"flags,omitempty"`    // attach by nbd: what the server can do
	Size     uint64 `json:"size,omitempty"`     // nbd: bytes
	Force    bool   `json:"force,omitempty"`    // detach, also when it is in use: it goes when its last user has gone
}

// What a kernelJob can do.
const (
	jobAttach  = "attach"  // answers the path; by nbd it also holds it: see link
	jobRefresh = "refresh" // lets it see its size
	jobDetach  = "detach"
)

// nbdPrefix begins the paths of the nbd driver's block devices.
const nbdPrefix = "/dev/nbd"

// driverOf is the driver of a block device; "" of none.
func driverOf(path string) string {
	switch {
	case path == "":
		return ""
	case strings.HasPrefix(path, nbdPrefix):
		return ctl.DriverNBD
	}
	return ctl.DriverLoop
}

// jobDone is what became of a kernelJob.
type jobDone struct {
	Path   string     `json:"path,omitempty"`
	Unused bool       `json:"unused,omitempty"` // the block device is not, or no more, ours
	Error  *ctl.Error `json:"error,omitempty"`
}

func (d *jobDone) result() (path string, err error) {
	switch {
	case d.Unused:
		return "", errUnused
	case d.Error != nil:
		return "", d.Error
	}
	return d.Path, nil
}

// Helper does one job for a daemon, which it reads from in and answers to out: the
// whole of the process that [Config.Helper] starts.
func Helper(in io.Reader, out io.Writer) error {
	var j kernelJob
	jobs := json.NewDecoder(in)
	if err := jobs.Decode(&j); err != nil {
		return err
	}
	var done jobDone
	var err error
	held := false
	switch {
	case j.Do == jobAttach && j.Driver == ctl.DriverNBD:
		done.Path, err = j.connect()
		held = err == nil
	case j.Do == jobAttach:
		done.Path, err = j.attach()
	case j.Do == jobRefresh && j.Driver == ctl.DriverNBD:
		err = j.resize()
	case j.Do == jobRefresh:
		err = j.refresh()
	case j.Do == jobDetach:
		err = j.detach()
	default:
		return fmt.Errorf("unknown job %q", j.Do)
	}
	if done.Unused = errors.Is(err, errUnused); err != nil && !done.Unused {
		done.Error = ctl.NewError(err)
	}
	err = json.NewEncoder(out).Encode(done)
	if held {
		err = j.hold(jobs) // who does not read the answer has died
	}
	return err
}

var errNoHelper = dm.Errorf(syscall.ENOTSUP, "this daemon cannot attach devices")

// job has a job done. errUnused: the block device is not, or no more, ours.
func (k *Kernel) job(j kernelJob) (path string, err error) {
	if len(k.helper) == 0 {
		return "", errNoHelper
	}
	in, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(k.helper[0], k.helper[1:]...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &errs
	out, err := cmd.Output()
	var done jobDone
	if err == nil {
		err = json.Unmarshal(out, &done)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w %s", cmd, err, bytes.TrimSpace(errs.Bytes()))
	}
	return done.result()
}
