//go:build linux && (amd64 || arm64)

package run

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/ctl"
	"udm/run/dmioctl"
	"udm/run/notify"
)

var le = binary.LittleEndian

// driver is the version of the interface that is answered.
var driver = [3]uint32{4, 47, 0}

// dm answers an ioctl of /dev/mapper/control.
func (s *session) dm(c *notify.Call) outcome {
	id, _, err := identify(c.FD(int32(c.Args[0])))
	if err != nil || !s.controls.has(id) {
		return kernel
	}
	command := dmioctl.Command(c.Args[1])
	if !command.Known() {
		return failure(unix.ENOTTY)
	}
	return wait(func() outcome { return s.dmCall(c, command) })
}

// dmCall reads a call, carries it out and writes the answer.
func (s *session) dmCall(c *notify.Call, command dmioctl.Command) outcome {
	b, errno := readCall(c)
	if errno != 0 {
		return failure(errno)
	}
	m, err := dmioctl.Unmarshal(command, dmioctl.Request, b)
	if err != nil {
		return failure(unix.EINVAL)
	}
	m.Flags = m.Flags.ForAnswer()
	do := &dmCall{session: s, call: c, m: m}
	if err := do.run(command); err != nil {
		return ended(err)
	}
	m.Version = driver
	return ended(c.Write(c.Args[2], m.Marshal(command, dmioctl.Answer, len(b))))
}

// readCall reads a call after checking its version, as the kernel does: the caller gets
// the kernel's version in any case.
func readCall(c *notify.Call) ([]byte, unix.Errno) {
	head := make([]byte, dmioctl.HeaderSize)
	if c.Read(c.Args[2], head) != nil {
		return nil, unix.EFAULT
	}
	version, size := dmioctl.VersionOf(head), dmioctl.SizeOf(head)
	var ours []byte
	for _, v := range driver {
		ours = le.AppendUint32(ours, v)
	}
	switch {
	case c.Write(c.Args[2], ours) != nil:
		return nil, unix.EFAULT
	case version[0] != driver[0] || version[1] > driver[1] || size < dmioctl.HeaderSize:
		return nil, unix.EINVAL
	case size > dmioctl.MaxSize:
		return nil, unix.ENOMEM
	}
	b := make([]byte, size)
	if c.Read(c.Args[2], b) != nil {
		return nil, unix.EFAULT
	}
	return b, 0
}

// dmCall is a command at work: m is the request and becomes the answer.
type dmCall struct {
	*session
	call *notify.Call
	m    *dmioctl.Message
}

// dmCommands has what each command does.
var dmCommands = map[dmioctl.Command]func(*dmCall, context.Context) error{
	dmioctl.Version:          func(*dmCall, context.Context) error { return nil },
	dmioctl.RemoveAll:        (*dmCall).removeAll,
	dmioctl.ListDevices:      (*dmCall).listDevices,
	dmioctl.DevCreate:        (*dmCall).create,
	dmioctl.DevRemove:        (*dmCall).remove,
	dmioctl.DevRename:        (*dmCall).rename,
	dmioctl.DevSuspend:       (*dmCall).suspend,
	dmioctl.DevStatus:        (*dmCall).status,
	dmioctl.DevWait:          (*dmCall).wait,
	dmioctl.TableLoad:        (*dmCall).load,
	dmioctl.TableClear:       (*dmCall).clear,
	dmioctl.TableDeps:        (*dmCall).deps,
	dmioctl.TableStatus:      (*dmCall).tableStatus,
	dmioctl.ListVersions:     (*dmCall).versions,
	dmioctl.TargetMsg:        (*dmCall).message,
	dmioctl.DevSetGeometry:   (*dmCall).setGeometry,
	dmioctl.DevArmPoll:       (*dmCall).armPoll,
	dmioctl.GetTargetVersion: (*dmCall).version,
}

// asks are the commands that change nothing.
var asks = map[dmioctl.Command]bool{dmioctl.Version: true, dmioctl.ListDevices: true, dmioctl.DevStatus: true, dmioctl.TableDeps: true,
	dmioctl.TableStatus: true, dmioctl.ListVersions: true, dmioctl.DevArmPoll: true, dmioctl.GetTargetVersion: true}

func (d *dmCall) run(command dmioctl.Command) error {
	err := dmCommands[command](d, context.Background())
	if !asks[command] {
		d.devices.stale()
	}
	return err
}

// ref is the device that a call names: by uuid, name or number, but only one of them.
func (d *dmCall) ref() ctl.Ref {
	r := ctl.Ref{UUID: d.m.UUID, Name: d.m.Name}
	if d.m.Dev != (blk.Number{}) {
		n := ctl.Number(d.m.Dev)
		r.Number = &n
	}
	return r
}

// find describes the device of a call. ENXIO: there is none.
func (d *dmCall) find(ctx context.Context, q ctl.Query) (ctl.Device, error) {
	q.Ref = d.ref()
	v, err := d.service.Device(ctx, q)
	if errors.Is(err, unix.EINVAL) {
		err = unix.ENXIO // named in two ways
	}
	return v, err
}

// answer makes the answer describe a device.
func (d *dmCall) answer(v ctl.Device, err error) error {
	if err != nil {
		return err
	}
	m := d.m
	m.Flags = m.Flags.WithDevice(dmioctl.Suspended.If(v.Suspended) | dmioctl.ReadOnly.If(v.ReadOnly) | dmioctl.ActivePresent.If(v.Live) |
		dmioctl.InactivePresent.If(v.Inactive) | dmioctl.DeferredRemove.If(v.DeferredRemove) | dmioctl.InternalSuspend.If(v.InternallySuspended))
	m.TargetCount, m.OpenCount, m.Event = uint32(v.Targets), int32(v.Opens), v.Event
	m.Dev, m.Name, m.UUID = blk.Number(v.Number), v.Name, v.UUID
	return nil
}

func (d *dmCall) create(ctx context.Context) error {
	r := ctl.Create{Name: d.m.Name, UUID: d.m.UUID}
	if d.m.Flags&dmioctl.PersistentDev != 0 {
		r.Minor = &d.m.Dev.Minor
	}
	return d.answer(d.service.Create(ctx, r))
}

func (d *dmCall) removeAll(ctx context.Context) error {
	before := d.devices.all()
	err := d.service.RemoveAll(ctx, ctl.Remove{Deferred: d.m.Flags&dmioctl.DeferredRemove != 0})
	d.devices.stale()
	for _, v := range before {
		if _, still := d.devices.number(blk.Number(v.Number)); !still {
			d.hideNode(blk.Number(v.Number))
		}
	}
	return err
}

func (d *dmCall) remove(ctx context.Context) error {
	v, err := d.settled(ctx)
	if err != nil {
		return err
	}
	r := ctl.Remove{Ref: ctl.Ref{Number: &v.Number}, Deferred: d.m.Flags&dmioctl.DeferredRemove != 0}
	if err := d.service.Remove(ctx, r); err != nil {
		return err
	}
	if _, err := d.service.Device(ctx, ctl.Query{Ref: r.Ref}); err != nil {
		d.hideNode(blk.Number(v.Number))
	}
	d.m.Name, d.m.UUID = v.Name, v.UUID
	return nil
}

const (
	lastCloses = 2 * time.Second // how long a close may be on its way to the daemon
	lookAgain  = time.Millisecond
)

// settled describes the device of a call when the daemon has learned of every close that
// programs have made. It polls: the kernel sends FUSE's RELEASE after close has returned,
// and nothing announces its arrival.
func (d *dmCall) settled(ctx context.Context) (ctl.Device, error) {
	v, err := d.find(ctx, ctl.Query{})
	for until := time.Now().Add(lastCloses); err == nil && v.Holders["files"] > 0 && time.Now().Before(until); {
		if d.openInPrograms(blk.Number(v.Number)) {
			return v, nil
		}
		time.Sleep(lookAgain)
		v, err = d.service.Device(ctx, ctl.Query{Ref: ctl.Ref{Number: &v.Number}})
	}
	return v, err
}

func (d *dmCall) rename(ctx context.Context) error {
	v, err := d.find(ctx, ctl.Query{})
	if err != nil {
		return err
	}
	r := ctl.Rename{Ref: ctl.Ref{Number: &v.Number}, NewName: d.m.Text}
	if d.m.Flags&dmioctl.UUID != 0 {
		r.NewName, r.NewUUID = "", d.m.Text
	}
	return d.answer(d.service.Rename(ctx, r))
}

func (d *dmCall) suspend(ctx context.Context) error {
	v, err := d.find(ctx, ctl.Query{})
	if err != nil {
		return err
	}
	r := ctl.Suspend{Ref: ctl.Ref{Number: &v.Number}, Noflush: d.m.Flags&dmioctl.Noflush != 0}
	if d.m.Flags&dmioctl.Suspended != 0 {
		return d.answer(d.interruptible(ctx, func(ctx context.Context) (ctl.Device, error) { return d.service.Suspend(ctx, r) }))
	}
	return d.answer(d.service.Resume(ctx, r))
}

func (d *dmCall) status(ctx context.Context) error {
	if _, err := d.settled(ctx); err != nil {
		return err
	}
	return d.answer(d.find(ctx, ctl.Query{Inactive: d.queryInactive()}))
}

func (d *dmCall) queryInactive() bool { return d.m.Flags&dmioctl.QueryInactive != 0 }

func (d *dmCall) load(ctx context.Context) error {
	v, err := d.find(ctx, ctl.Query{})
	if err != nil {
		return err
	}
	var table strings.Builder
	for _, t := range d.m.Targets {
		fmt.Fprintf(&table, "%d %d %s %s\n", t.Start, t.Length, t.Type, d.numbers(t.Params))
	}
	if d.takesClaimed(table.String()) {
		return unix.EBUSY
	}
	v, err = d.service.Load(ctx, ctl.Load{Ref: ctl.Ref{Number: &v.Number}, Table: table.String(), ReadOnly: d.m.Flags&dmioctl.ReadOnly != 0})
	if err == nil {
		err = d.tree.SetNode("/dev/"+mappedName(blk.Number(v.Number)), d.nodeFor(blk.Number(v.Number)))
	}
	return d.answer(v, err)
}

// takesClaimed reports whether a table names a device that a program has claimed.
func (d *dmCall) takesClaimed(table string) bool {
	for w := range strings.FieldsSeq(table) {
		if n, ok := blk.ParseNumber(w); ok && d.claimedByProgram(n) {
			return true
		}
	}
	return false
}

func (d *dmCall) clear(ctx context.Context) error {
	v, err := d.find(ctx, ctl.Query{})
	if err != nil {
		return err
	}
	return d.answer(d.service.Clear(ctx, ctl.Ref{Number: &v.Number}))
}

func (d *dmCall) deps(ctx context.Context) error {
	v, err := d.find(ctx, ctl.Query{With: []ctl.With{ctl.WithDeps}, Inactive: d.queryInactive()})
	for _, dep := range v.Deps {
		d.m.Deps = append(d.m.Deps, blk.Number(dep.Number))
	}
	return d.answer(v, err)
}

func (d *dmCall) tableStatus(ctx context.Context) error {
	return d.targets(d.find(ctx, d.statusQuery()))
}

func (d *dmCall) statusQuery() ctl.Query {
	q := ctl.Query{With: []ctl.With{ctl.WithStatus}, Inactive: d.queryInactive(), Noflush: d.m.Flags&dmioctl.Noflush != 0, Keys: true}
	if d.m.Flags&dmioctl.StatusTable != 0 {
		q.With[0] = ctl.WithTable
	}
	return q
}

// targets answers with the lines of a description.
func (d *dmCall) targets(v ctl.Device, err error) error {
	for _, l := range append(v.Status, v.Table...) {
		d.m.Targets = append(d.m.Targets, dmioctl.Target{Start: l.Start, Length: l.Length, Type: l.Target, Params: l.Params})
	}
	return d.answer(v, err)
}

func (d *dmCall) wait(ctx context.Context) error {
	v, err := d.find(ctx, ctl.Query{})
	if err != nil {
		return err
	}
	r := ctl.Wait{Ref: ctl.Ref{Number: &v.Number}, Event: d.m.Event}
	v, err = d.interruptible(ctx, func(ctx context.Context) (ctl.Device, error) { return d.service.Wait(ctx, r) })
	if err != nil {
		return err
	}
	q := d.statusQuery()
	q.Ref = ctl.Ref{Number: &v.Number}
	if now, err := d.service.Device(ctx, q); err == nil {
		v = now
	}
	return d.targets(v, nil)
}

// lookForSignals is how often a caller that waits is looked at.
const lookForSignals = 20 * time.Millisecond

// interruptible runs a command that may wait long, until a signal arrives for the caller
// or the caller is killed.
func (d *dmCall) interruptible(ctx context.Context, do func(context.Context) (ctl.Device, error)) (v ctl.Device, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		v, err = do(ctx)
	}()
	t := time.NewTicker(lookForSignals)
	defer t.Stop()
	for {
		select {
		case <-done:
			return v, err
		case <-t.C:
			if d.call.Interrupted() || !d.listener.Valid(d.call) {
				cancel()
			}
		}
	}
}

func (d *dmCall) listDevices(ctx context.Context) error {
	list, err := d.service.List(ctx, ctl.Query{})
	for _, v := range list {
		if strings.HasPrefix(v.Name, d.m.Name) && strings.HasPrefix(v.UUID, d.m.UUID) {
			d.m.Devices = append(d.m.Devices, dmioctl.Device{Dev: blk.Number(v.Number), Event: v.Event, Name: v.Name, UUID: v.UUID,
				WithUUID: d.m.Flags&dmioctl.UUID != 0})
		}
	}
	return err
}

func (d *dmCall) versions(ctx context.Context) error {
	types, err := d.service.Targets(ctx)
	for _, t := range types {
		d.m.Versions = append(d.m.Versions, dmioctl.TargetVersion{Version: t.Version, Name: t.Name})
	}
	return err
}

// version answers with the version of one target, which is in the place of the name.
func (d *dmCall) version(ctx context.Context) error {
	types, err := d.service.Targets(ctx)
	for _, t := range types {
		if t.Name == d.m.Name {
			d.m.Versions = []dmioctl.TargetVersion{{Version: t.Version, Name: t.Name}}
			return nil
		}
	}
	return errors.Join(err, unix.EINVAL)
}

func (d *dmCall) message(ctx context.Context) error {
	v, err := d.find(ctx, ctl.Query{})
	if err != nil {
		return err
	}
	r := ctl.Ref{Number: &v.Number}
	text, err := d.service.Message(ctx, ctl.Message{Ref: r, Sector: d.m.Sector, Text: d.m.Text})
	if err != nil {
		return err
	}
	d.m.Text, d.m.Flags = text, d.m.Flags|dmioctl.DataOut.If(text != "")
	return d.answer(d.service.Device(ctx, ctl.Query{Ref: r}))
}

// setGeometry has no effect, as nobody asks for the geometry.
func (d *dmCall) setGeometry(ctx context.Context) error {
	v, err := d.find(ctx, ctl.Query{})
	if err == nil && !v.Live {
		err = unix.ENXIO
	}
	return d.answer(v, err)
}

func (d *dmCall) armPoll(context.Context) error {
	return d.controls.arm(d.call.FD(int32(d.call.Args[0])))
}
