package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server/exports"
	"udm/dm"
	"udm/export"
	"udm/export/ublk"
)

const (
	ublkQueues = 4 // the most; the driver has one for each processor at most
	ublkDepth  = 64
	ublkBytes  = 512 << 10 // of one read or write
)

// byUblk makes a block device of the ublk driver, or goes on with the one at path that a
// daemon before has left. auto: refuses if the driver is old, faulty or missing.
func (k *Kernel) byUblk(d *dm.Device, path string, auto bool) (string, error) {
	if _, err := os.Stat(ublk.ControlPath); auto && err != nil {
		return "", ublkRefused(err)
	}
	minor := d.Number().Minor
	x, err := export.Lasting(k.exports.For(attachments).ByNumber()).Open(exports.Numbered(minor))
	if err != nil {
		return "", err
	}
	j := k.newJob(jobAttach, minor, ctl.DriverUblk, path)
	l := x.Device.Limits()
	l.ReadOnly = l.ReadOnly || x.ReadOnly
	j.Limits, j.Auto, j.Queues = &l, auto, uint16(min(runtime.NumCPU(), ublkQueues))
	done, err := k.answer(context.Background(), j)
	if err != nil {
		x.Done()
		return "", err
	}
	j.Path, j.Do = done.Path, done.Next
	err = k.serveUblk(j, minor, x)
	switch {
	case err == nil:
		return j.Path, nil
	case j.Do == jobStart:
		k.leaveUblk(minor)
		j.Do = jobDelete
		_, derr := k.job(j)
		return "", errors.Join(err, derr)
	}
	k.leaveUblk(minor) // its users wait, and lose nothing
	return "", err
}

// free reports whether the block device of a daemon before can be attached again at once: not
// while the ublk driver has not noticed that daemon's end.
func (k *Kernel) free(minor uint32) bool {
	if driverOf(k.devices[minor].path) != ctl.DriverUblk || k.serves(minor) {
		return true
	}
	st, err := k.ublkState(minor)
	return err != nil || st != ublk.Live // attaching tells the error
}

// ublkWaits reports whether the users of a block device wait for another server.
func (k *Kernel) ublkWaits(minor uint32) bool {
	st, err := k.ublkState(minor)
	return err == nil && st == ublk.Quiesced
}

// ublkState returns the state of a block device in the driver: errUnused.
func (k *Kernel) ublkState(minor uint32) (ublk.State, error) {
	c, err := ublk.Open()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	j := k.newJob(jobAttach, minor, ctl.DriverUblk, k.devices[minor].path)
	i, err := j.oursUblk(c)
	return i.State, err
}

// leaveUblk ends the servers of block devices, side by side: each waits until its users are calm.
func (k *Kernel) leaveUblk(minors ...uint32) {
	var leaving sync.WaitGroup
	for _, minor := range minors {
		if s := k.ublk[minor]; s != nil {
			leaving.Go(s.Leave)
			delete(k.ublk, minor)
		}
	}
	leaving.Wait()
}

// serveUblk serves a device that has been added or prepared, and does what is next.
func (k *Kernel) serveUblk(j kernelJob, minor uint32, x *export.Export) error {
	c, err := ublk.Open()
	if err != nil {
		x.Done()
		return ublkRefused(err)
	}
	defer c.Close()
	id, _ := j.ublkID()
	s, err := ublk.Serve(c, id, x, k.log)
	if err != nil {
		return ublkRefused(err)
	}
	k.ublk[minor] = s
	// The driver waits for the server for ever.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.Ended():
			cancel()
		case <-ctx.Done():
		}
	}()
	j.Server = os.Getpid()
	_, err = k.answer(ctx, j)
	switch {
	case err == nil:
		s.Up()
	case !k.serves(minor):
		err = fmt.Errorf("the ublk driver has not taken the server's commands: %w", err)
	}
	return err
}

// ublk does a job on a block device of the ublk driver.
func (j *kernelJob) ublk(done *jobDone) error {
	c, err := ublk.Open()
	if err != nil {
		return ublkRefused(err)
	}
	defer c.Close()
	if j.Do == jobAttach {
		return j.addUblk(c, done)
	}
	i, err := j.oursUblk(c)
	if err != nil {
		return err
	}
	done.Path = j.Path
	switch j.Do {
	case jobStart:
		err := c.Start(i.ID, j.Server)
		j.lookForStuck()
		return ublkRefused(err)
	case jobRecovered:
		return ublkRefused(c.Recovered(i.ID, j.Server))
	case jobRefresh:
		return j.resizeUblk(c, i)
	case jobDetach:
		return j.stopUblk(c, i)
	case jobDelete:
		return ublkRefused(c.Delete(i.ID))
	}
	return fmt.Errorf("unknown job %q", j.Do)
}

func (j *kernelJob) ublkID() (uint32, bool) {
	text, ok := strings.CutPrefix(j.Path, ublkPrefix)
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), ok && err == nil
}

// mark is what the driver keeps for us: whose a device is.
func (j *kernelJob) mark() uint64 {
	h := fnv.New64a()
	h.Write([]byte(j.File))
	return h.Sum64()
}

// oursUblk finds the job's block device: errUnused.
func (j *kernelJob) oursUblk(c *ublk.Control) (ublk.Info, error) {
	id, ok := j.ublkID()
	if !ok {
		return ublk.Info{}, errUnused
	}
	i, err := c.Info(id)
	switch {
	case errors.Is(err, syscall.ENODEV), err == nil && i.Mark != j.mark():
		return i, errUnused
	case err != nil:
		return i, ublkRefused(err)
	}
	return i, nil
}

// release is that of the kernel.
func release() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // has no errors
	return unix.ByteSliceToString(u.Release[:])
}

// addUblk adds a device, or prepares the one that an earlier daemon has left.
func (j *kernelJob) addUblk(c *ublk.Control, done *jobDone) error {
	if j.Auto && (c.Legacy() || ublk.Faulty(release())) {
		return dm.Errorf(syscall.ENODEV, "the ublk driver of this kernel is taken only if it is asked for, with --ublk")
	}
	left, err := j.oursUblk(c)
	switch {
	case err == nil && left.State != ublk.Dead && !j.Limits.ProcessMemory:
		done.Path, done.Next = j.Path, jobRecovered
		return ublkRefused(c.Recover(left.ID, recoverTime))
	case err == nil:
		// Users of its disk have lost it; the driver forgets it after them.
		_ = c.Stop(left.ID)
		_ = c.DeleteLater(left.ID)
	}
	want := ublk.Info{ID: ublk.AnyID, Queues: j.Queues, Depth: ublkDepth, MaxBytes: ublkBytes, Mark: j.mark()}
	if id, ok := j.ublkID(); ok {
		want.ID = id
	}
	i, err := c.Add(want, j.Limits)
	if errors.Is(err, syscall.EEXIST) {
		want.ID = ublk.AnyID
		i, err = c.Add(want, j.Limits)
	}
	done.Path, done.Next = fmt.Sprint(ublkPrefix, i.ID), jobStart
	return ublkRefused(err)
}

// stopUblk writes out what the kernel has cached and takes the block device away, unless
// it is in use.
func (j *kernelJob) stopUblk(c *ublk.Control, i ublk.Info) error {
	if i.State == ublk.Dead {
		_ = c.DeleteLater(i.ID) // users of the disk have lost it; the driver forgets it after them
		return nil
	}
	fd, err := unix.Open(j.Path, unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, syscall.EBUSY) {
		return dm.Errorf(syscall.EBUSY, "%s is in use; unmount it first", j.Path)
	} else if err != nil {
		return &os.PathError{Op: "open", Path: j.Path, Err: err}
	}
	if i.State == ublk.Live { // else nobody would answer
		err = unix.Fsync(fd)
	}
	if err != nil && !j.Force {
		unix.Close(fd)
		return &os.PathError{Op: "fsync", Path: j.Path, Err: err}
	}
	if j.Stay && openElsewhere(j.Path) {
		unix.Close(fd)
		return syscall.EBUSY
	}
	err = c.Stop(i.ID)
	unix.Close(fd)
	if err == nil {
		err = c.Delete(i.ID) // when the daemon has seen the end as well
	}
	return ublkRefused(err)
}

// hasMount reports whether a file system that this process sees is mounted from a block device.
func hasMount(path string) bool {
	var st unix.Stat_t
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || unix.Stat(path, &st) != nil {
		return false
	}
	return bytes.Contains(mounts, fmt.Appendf(nil, " %d:%d ", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
}

// openElsewhere reports whether another process has a block device open, as far as this one may
// look. Unlike file systems, programs that read and write a block device seldom claim it.
func openElsewhere(path string) bool {
	own := fmt.Sprintf("/proc/%d/", os.Getpid())
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well-formed
	return slices.ContainsFunc(fds, func(fd string) bool {
		to, err := os.Readlink(fd) // unlike Stat it asks no file system, which this daemon may serve
		return err == nil && to == path && !strings.HasPrefix(fd, own)
	})
}

// resizeUblk lets the kernel see the device's size.
func (j *kernelJob) resizeUblk(c *ublk.Control, i ublk.Info) error {
	sectors := j.Size / blk.SectorSize
	text, err := os.ReadFile("/sys/block/" + strings.TrimPrefix(j.Path, "/dev/") + "/size")
	if err == nil && strings.TrimSpace(string(text)) == strconv.FormatUint(sectors, 10) {
		return nil
	}
	err = c.Resize(i.ID, sectors)
	if errors.Is(err, syscall.ENOTSUP) {
		return dm.Errorf(syscall.ENOTSUP, "%s keeps its size: the ublk driver of this kernel cannot change it, Linux 6.16 can; detach and attach it for the new one", j.Path)
	}
	return ublkRefused(err)
}

// ublkRefused says which right or part of the kernel is missing.
func ublkRefused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ublk.ErrMissing), errors.Is(err, fs.ErrNotExist):
		return dm.Errorf(syscall.ENODEV, "%v; try modprobe ublk_drv", err)
	case errors.Is(err, ublk.ErrUnavailable):
		return dm.Errorf(syscall.ENODEV, "the ublk driver: %v", err)
	case errors.Is(err, fs.ErrPermission):
		return dm.Errorf(syscall.EPERM, "the daemon, which runs as user %d, may not use the ublk driver (%v); run it with CAP_SYS_ADMIN, or use udm mount", os.Geteuid(), err)
	}
	return fmt.Errorf("ublk driver: %w", err)
}
