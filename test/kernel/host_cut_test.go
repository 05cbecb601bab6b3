//go:build unix

package kernel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
	"udm/test/kernel/conform"
)

// errPower ends a script: there is nobody left to run it.
var errPower = errors.New("the power is off")

// power is what all disks of a host lose at the same moment.
type power struct {
	mu      sync.Mutex
	changes int  // bios so far that change or flush a disk; guarded by mu
	last    int  // the bio at which it goes off; 0: never; set once
	off     bool // guarded by mu
}

func (p *power) isOff() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.off
}

// cutDisk is a disk with a volatile cache. The bio at which the power goes off may have been done in part.
type cutDisk struct {
	*memdev.Device
	power *power
}

func (d *cutDisk) Submit(b *blk.Bio) { b.Complete(d.perform(b)) }
func (d *cutDisk) Close() error      { return nil }

func (d *cutDisk) perform(b *blk.Bio) blk.Status {
	p := d.power
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return blk.IOErr
	}
	c := &blk.Bio{End: func(*blk.Bio) {}}
	c.CloneFrom(b)
	if b.Op != blk.Read {
		p.changes++
	}
	if p.changes != p.last || b.Op == blk.Read {
		d.Device.Submit(c)
		return c.Status()
	}
	p.off = true
	if c.Flags &^= blk.FUA | blk.Preflush; c.Op != blk.Flush {
		d.Device.Submit(c)
	}
	return blk.IOErr
}

// cutHost is udm in this process, on disks that lose power together. It knows the verbs of dmsetup that random scripts use, and ends a
// script with errPower.
type cutHost struct {
	env     env.Env
	control *dm.Control
	power   *power
	disks   []*cutDisk
	names   []string // of the disks, as in AddDisk
	users   sync.WaitGroup
}

func newCutHost(last int) *cutHost {
	h := &cutHost{env: env.Real(), power: &power{last: last}}
	h.control = dm.NewControl(h.env, dm.Opener(cutOpener{h}), all.Types()...)
	return h
}

// AddDisk implements conform.Host.
func (h *cutHost) AddDisk(name string, size int64, _ int) (string, error) {
	h.disks = append(h.disks, &cutDisk{memdev.New(uint64(size)/blk.SectorSize, memdev.Volatile), h.power})
	h.names = append(h.names, name)
	return h.path(len(h.disks) - 1), nil
}

func (h *cutHost) path(i int) string { return fmt.Sprintf("/cut/%d", i) }

type cutOpener struct{ *cutHost }

func (o cutOpener) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	for i, d := range o.disks {
		n := dm.Number{Major: 7, Minor: uint32(i)}
		if name == o.path(i) || name == n.String() {
			return checkdev.New(d, checkdev.Options{Preflush: true}), n, nil
		}
	}
	return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "no disk %s", name)
}

// Number implements conform.Host.
func (h *cutHost) Number(path string) (string, error) { return "7:" + path[len("/cut/"):], nil }

// Log implements conform.Host.
func (h *cutHost) Log() []string { return nil }

// Dmsetup implements conform.Host.
func (h *cutHost) Dmsetup(ctx context.Context, args []string, _ string) (conform.Exit, error) {
	err := h.command(ctx, args)
	switch {
	case h.power.isOff():
		return conform.Exit{}, errPower
	case err != nil:
		return conform.Exit{Code: 1, Stderr: err.Error()}, nil
	}
	return conform.Exit{}, nil
}

func (h *cutHost) command(ctx context.Context, args []string) error {
	switch {
	case args[0] == "create":
		return h.create(ctx, args[1], args[len(args)-1])
	case len(args) == 1:
		return nil // status of all
	}
	d, err := h.control.Name(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "remove":
		_, err = d.Remove(false)
	case "suspend":
		err = d.Suspend(ctx, false)
	case "resume":
		err = d.Resume(ctx, false)
	case "message":
		text := ""
		for _, word := range args[3:] {
			text += word + " "
		}
		_, err = d.Message(0, text)
	}
	return err
}

func (h *cutHost) create(ctx context.Context, name, table string) error {
	specs, err := dm.ParseTable(table)
	if err != nil {
		return err
	}
	d, err := h.control.Create(name, "", -1)
	if err != nil {
		return err
	}
	if err = d.Load(specs, dm.Mode{Write: true}); err == nil {
		err = d.Resume(ctx, false)
	}
	if err != nil {
		_, rerr := d.Remove(false)
		err = errors.Join(err, rerr)
	}
	return err
}

// Open implements conform.Host. What is written to a disk itself is durable when the disk is closed.
func (h *cutHost) Open(name string) (conform.Device, error) {
	var d blk.Device
	var err error
	if name[0] == '/' {
		d, _, err = cutOpener{h}.Open(name, true)
	} else if m, merr := h.control.Name(name); merr != nil {
		err = merr
	} else if d, err = m.Open(true); err == nil {
		d = checkdev.New(d, checkdev.Options{})
	}
	if err != nil || h.power.isOff() {
		return nil, errors.Join(err, errPower)
	}
	h.users.Add(1)
	return &cutUser{d, h, name[0] == '/'}, nil
}

// Reset implements conform.Host.
func (h *cutHost) Reset() error {
	h.users.Wait()
	if err := h.control.Close(); !h.power.isOff() {
		return err
	}
	return nil
}

// cutUser is an open device of a cutHost.
type cutUser struct {
	dev     blk.Device
	host    *cutHost
	durable bool
}

func (u *cutUser) do(b *blk.Bio) error {
	if blk.Do(u.host.env, u.dev, b) != blk.OK {
		return syscall.EIO
	}
	return nil
}

func (u *cutUser) data(op blk.Op, buf []byte, off int64) error {
	b := &blk.Bio{Op: op, Sector: uint64(off) / blk.SectorSize}
	b.SetData(buf)
	return u.do(b)
}

func (u *cutUser) span(op blk.Op, off, n int64) error {
	return u.do(&blk.Bio{Op: op, Sector: uint64(off) / blk.SectorSize, Sectors: uint64(n) / blk.SectorSize})
}

func (u *cutUser) Read(buf []byte, off int64) error  { return u.data(blk.Read, buf, off) }
func (u *cutUser) Write(buf []byte, off int64) error { return u.data(blk.Write, buf, off) }
func (u *cutUser) Discard(off, n int64) error        { return u.span(blk.Discard, off, n) }
func (u *cutUser) Zero(off, n int64) error           { return u.span(blk.WriteZeroes, off, n) }
func (u *cutUser) Flush() error                      { return u.span(blk.Flush, 0, 0) }
func (u *cutUser) Limits() (conform.Limits, error)   { return conform.Limits{}, nil }

func (u *cutUser) Close() error {
	defer u.host.users.Done()
	var err error
	if u.durable {
		err = u.Flush()
	}
	return errors.Join(err, u.dev.Close())
}
