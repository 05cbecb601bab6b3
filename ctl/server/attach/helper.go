package attach

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
)

// kernelJob is work on a block device of drivers/block/loop.c, nbd.c or ublk_drv.c. A
// separate process does it, because the daemon serves what is below the block device and
// must not wait for itself.
type kernelJob struct {
	Do       string `json:"do"`
	Driver   string `json:"driver"`             // loop, nbd or ublk
	File     string `json:"file"`               // the file of a loop device; for the others, only its backend name
	Path     string `json:"path"`               // of the block device; for attach: the preferred one, or ""
	ReadOnly bool   `json:"readOnly,omitempty"` // attach by loop
	Block    uint32 `json:"block,omitempty"`    // attach; logical block size in bytes
	Flags    uint16 `json:"flags,omitempty"`    // attach by nbd: features of the server
	Size     uint64 `json:"size,omitempty"`     // nbd, ublk: bytes
	Memory   bool   `json:"memory,omitempty"`   // attach by nbd: its content ends with the daemon
	Force    bool   `json:"force,omitempty"`    // detach also when it is in use: it is removed when its last user closes it
	Stay     bool   `json:"stay,omitempty"`     // detach only if nobody has it open at all

	// For attach by ublk.
	Limits *blk.Limits `json:"limits,omitempty"`
	Queues uint16      `json:"queues,omitempty"` // at most
	Auto   bool        `json:"auto,omitempty"`   // refuse drivers older than Linux 6.5
	Server int         `json:"server,omitempty"` // start, recovered: the daemon's process id
}

// Jobs of a kernelJob.
const (
	jobAttach     = "attach"  // answers the path; for nbd it may also hold the connection: see link
	jobRefresh    = "refresh" // updates the size
	jobDetach     = "detach"
	jobDisconnect = "disconnect" // of nbd: detach what has no server; requests fail

	// For ublk, attach only adds a device, or prepares an existing one for recovery:
	// the answer names the next job, to be run when the daemon serves the device.
	jobStart     = "start"
	jobRecovered = "recovered"
	jobDelete    = "delete" // after a start that failed, when the daemon no longer serves it
)

// Prefixes of the paths of the drivers' block devices.
const (
	nbdPrefix  = "/dev/nbd"
	ublkPrefix = "/dev/ublkb"
)

// driverOf returns the driver of a block device, or "".
func driverOf(path string) string {
	switch {
	case path == "":
		return ""
	case strings.HasPrefix(path, nbdPrefix):
		return ctl.DriverNBD
	case strings.HasPrefix(path, ublkPrefix):
		return ctl.DriverUblk
	}
	return ctl.DriverLoop
}

// jobDone is the result of a kernelJob.
type jobDone struct {
	Path   string     `json:"path,omitempty"`
	Next   string     `json:"next,omitempty"`   // attach by ublk: the job that follows
	Unused bool       `json:"unused,omitempty"` // the block device is not, or no longer, ours
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

// Helper does one job for a daemon. It reads the job from in and writes the answer to
// out. It is all that the process started by [Config.Helper] does.
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
	case j.Driver == ctl.DriverUblk:
		err = j.ublk(&done)
	case j.Do == jobAttach && j.Driver == ctl.DriverNBD:
		done.Path, err = j.connect()
		held = err == nil && j.Memory
	case j.Do == jobAttach:
		done.Path, err = j.attach()
	case j.Do == jobRefresh && j.Driver == ctl.DriverNBD:
		err = j.resize()
	case j.Do == jobDisconnect:
		err = j.disconnect()
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
		err = j.hold(jobs) // if the answer is not read, the daemon has died
	}
	return err
}

var errNoHelper = dm.Errorf(syscall.ENOTSUP, "this daemon cannot attach devices")

// job runs a job in a helper. errUnused: the block device is not, or no longer, ours.
func (k *Kernel) job(j kernelJob) (path string, err error) {
	done, err := k.answer(context.Background(), j)
	return done.Path, err
}

// answer is job with all of the answer. When ctx ends, so does the helper.
func (k *Kernel) answer(ctx context.Context, j kernelJob) (done jobDone, err error) {
	if len(k.helper) == 0 {
		return done, errNoHelper
	}
	in, err := json.Marshal(j)
	if err != nil {
		return done, err
	}
	cmd := exec.CommandContext(ctx, k.helper[0], k.helper[1:]...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &errs
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &done)
	}
	if err != nil {
		return done, fmt.Errorf("%s: %w %s", cmd, err, bytes.TrimSpace(errs.Bytes()))
	}
	done.Path, err = done.result()
	return done, err
}
