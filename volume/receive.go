package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/linear"
	"udm/targets/thin"
	"udm/volume/rbddiff"
)

// ReceiveSpec says what to make of a stream.
type ReceiveSpec struct {
	Name string `json:"name,omitempty"` // of the new object; "": as the stream calls it
	// Pool or File is where a whole content goes: into a new volume, or a disk on a new
	// file. What has changed since a checkpoint goes where that is.
	Pool string `json:"pool,omitempty"`
	File string `json:"file,omitempty"`
	// Base is the checkpoint: an object that was received before, or the absolute path
	// of an image; "": the object with the name that the stream begins at.
	Base string `json:"base,omitempty"`
	// Labels are those of the new object.
	Labels map[string]string `json:"labels,omitempty"`
	// Unsealed takes a stream without a checksum, as rbd writes it.
	Unsealed bool `json:"unsealed,omitempty"`
	// Keep keeps what has come of a stream that is cut off, under NAME-incoming, and
	// Resume goes on with that: the stream begins where it was cut.
	Keep   bool `json:"keep,omitempty"`
	Resume bool `json:"resume,omitempty"`
}

// Received tells what came of a stream.
type Received struct {
	Name string `json:"name"`
}

// incomingSuffix is behind the name of an object that a stream is received into. It
// gets its own when the stream is whole.
const incomingSuffix = "-incoming"

// Receive makes a new object, which nobody can write to, of a stream of package
// rbddiff. It is there when the stream is whole and begins at what the base holds;
// else nothing has changed, but for what is to be kept.
//
// It is two operations: one makes NAME-incoming, the other one fills it and gives it
// its name. What the second one leaves when it is undone is removed, by a third one,
// or at the next start.
func (m *Manager) Receive(ctx context.Context, s ReceiveSpec, r io.Reader) (Received, error) {
	stop := endBlocking(ctx, r)
	defer stop()
	in, err := m.beginReading(&s, r)
	if err != nil {
		return Received{}, readFailed(ctx, err)
	}
	if !m.setReceiving(s.Name, true) {
		return Received{}, refuse(syscall.EBUSY, "%s is already being received", s.Name)
	}
	if !s.Resume {
		err = m.run(ctx, &makeIncoming{s, in.Header()})
	}
	if err == nil {
		err = m.run(ctx, &fill{s, in, r})
	}
	m.setReceiving(s.Name, false)
	if err != nil {
		_ = m.removeAbandoned(m.ctx, s.Name) // what is in the way is tried again, and then this
	}
	return Received{s.Name}, err
}

// setReceiving tells whether somebody is about to fill an object; false: somebody was
// before.
func (m *Manager) setReceiving(name string, on bool) (was bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was = m.receiving[name]
	if on {
		m.receiving[name] = true
	} else {
		delete(m.receiving, name)
	}
	return was != on
}

func readFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	if bad := (*rbddiff.Error)(nil); errors.As(err, &bad) {
		return refuse(syscall.EBADMSG, "%v; nothing was changed", err)
	}
	return err
}

// beginReading reads the beginning of a stream, or goes on where it was cut off.
func (m *Manager) beginReading(s *ReceiveSpec, r io.Reader) (*rbddiff.Reader, error) {
	if s.Resume {
		at, err := m.incoming(s.Name)
		if err != nil {
			return nil, err
		}
		if at != nil {
			return rbddiff.Resume(r, *at)
		}
	}
	in, err := rbddiff.NewReader(r)
	if err == nil && s.Name == "" {
		s.Name = in.Header().To
	}
	return in, err
}

// incoming is where the stream of an object was cut off.
func (m *Manager) incoming(name string) (*rbddiff.Position, error) {
	in := m.devices.Record(name + incomingSuffix).Incoming
	if in == nil {
		return nil, refuse(syscall.ENXIO, "no part of %q has been received; start from the beginning", name)
	}
	return in.At, nil
}

// removeAbandoned removes what there is of a stream that was cut off, unless it is to
// be kept, or somebody is at it.
func (m *Manager) removeAbandoned(ctx context.Context, name string) error {
	m.mu.Lock()
	busy := m.receiving[name]
	m.mu.Unlock()
	in := m.devices.Record(name + incomingSuffix).Incoming
	if busy || in == nil || in.Keep {
		return nil
	}
	if _, err := m.object(name + incomingSuffix); err != nil {
		return err // what it is in is not here; the next start tries it again
	}
	return m.Remove(ctx, RemoveSpec{Name: name + incomingSuffix})
}

// removeAllAbandoned removes what the end of the daemon, or an error, has left.
func (m *Manager) removeAllAbandoned(ctx context.Context) (err error) {
	for _, d := range m.control.List() {
		if name, is := strings.CutSuffix(d.Name(), incomingSuffix); is {
			err = errors.Join(err, m.removeAbandoned(ctx, name))
		}
	}
	return err
}

// makeIncoming makes what a stream goes into.
type makeIncoming struct {
	ReceiveSpec
	header rbddiff.Header
}

func (c *makeIncoming) kind() string { return "receive" }

func (c *makeIncoming) touches(m *Manager) (claim, error) {
	cl := claim{objects: []string{c.Name, c.Name + incomingSuffix}}
	if c.File != "" {
		cl.objects = append(cl.objects, c.File)
	}
	pool := c.Pool
	if base := c.base(); base != "" {
		cl.shared = append(cl.shared, base)
		if o, err := m.object(base); err == nil && o.kind == Volume {
			pool = mapped(o.volume().Pool)
		}
	}
	if pool != "" {
		cl.objects = append(cl.objects, pool)
	}
	return cl, nil
}

// base is the name or path of what the stream begins at, "" if that is nothing.
func (c *makeIncoming) base() string {
	if c.Base != "" {
		return c.Base
	}
	return c.header.From
}

func (c *makeIncoming) plan(m *Manager, op *operation) error {
	size := c.header.Size
	switch {
	case !valid(c.Labels):
		return errLabels
	case size == 0 || size%blk.SectorSize != 0:
		return refuse(syscall.EINVAL, "the stream is of an image of %d bytes, which is not a multiple of the sector size", size)
	case c.header.From == "" && c.Base != "":
		return refuse(syscall.EINVAL, "the stream has all of %s and needs no base; name a pool or a file for it", c.Name)
	case c.header.From != "" && (c.Pool != "" || c.File != ""):
		return refuse(syscall.EINVAL, "the stream has the changes since %s and is stored beside it; name no pool or file", c.header.From)
	}
	if err := m.free(c.Name, c.Name+incomingSuffix); err != nil {
		return err
	}
	d := Device{Name: c.Name + incomingSuffix, Record: Record{Incoming: &Incoming{Keep: c.Keep}, Labels: c.Labels}}
	switch {
	case c.header.From != "":
		return c.onBase(m, op, d)
	case c.Pool != "":
		return c.inPool(m, op, d, &thin.ThinLine{Pool: dev(c.Pool)}, nil)
	case c.File == "":
		return refuse(syscall.EINVAL, "the stream has all of %s; name a pool or a new file for it", c.Name)
	case !filepath.IsAbs(c.File):
		return refuse(syscall.EINVAL, "%s is not an absolute path", c.File)
	}
	if _, err := m.files.Stat(c.File); err == nil {
		return refuse(syscall.EEXIST, "%s exists; name a new file", c.File)
	}
	op.Add = steps{&makeFiles{[]File{{Path: c.File, Size: size}}}}
	d.Record.Files = []string{c.File}
	c.device(op, d, &linear.Line{Place: dm.Place{Device: c.File}})
	return nil
}

func (c *makeIncoming) device(op *operation, d Device, l dm.Line) {
	d.Table = []dm.Spec{dm.NewSpec(0, c.header.Size/blk.SectorSize, l)}
	op.Add = append(op.Add, &createDevices{[]Device{d}})
}

func (c *makeIncoming) inPool(m *Manager, op *operation, d Device, l *thin.ThinLine, of *object) error {
	ids, err := m.freeIDs(mapped(l.Pool), 1)
	if err != nil {
		return err
	}
	v := &createVolume{Pool: mapped(l.Pool), ID: ids[0]}
	if of != nil {
		v.Of, v.Quiet = &of.volume().ID, of.name
	}
	line := *l
	line.ID = ids[0]
	op.Add = steps{v}
	c.device(op, d, &line)
	return nil
}

// onBase makes a writable copy of the base, which has to be what the sender had, and
// the same for good.
func (c *makeIncoming) onBase(m *Manager, op *operation, d Device) error {
	if filepath.IsAbs(c.base()) {
		return c.onImage(m, op, d)
	}
	o, err := m.object(c.base())
	switch {
	case c.Base == "" && err != nil:
		return refuse(syscall.ENXIO, "the stream has the changes since %s, which does not exist here; receive that first, or name its base", c.header.From)
	case err != nil:
		return err
	case !o.readOnly || o.content() == "":
		return refuse(syscall.ESTALE, "%s is writable and may differ from the sender's copy; name a received device", o.name)
	}
	d.Record.Incoming.Base = o.content()
	if o.kind == Volume {
		d.Record.Base, d.Record.Of = o.record.Base, o.record.Of
		if d.Record.Of == nil {
			d.Record.Of = &o.volume().ID
		}
		return c.inPool(m, op, d, o.volume(), o)
	}
	return c.withStore(m, op, d, &cloneShape{origin: dev(o.name), origSectors: o.sectors, sectors: o.sectors})
}

func (c *makeIncoming) onImage(m *Manager, op *operation, d Device) error {
	img, err := m.image(c.Base)
	if err != nil {
		return err
	}
	d.Record.Incoming.Base = img.Fingerprint
	return c.withStore(m, op, d, &cloneShape{origin: img.Path, base: &img.Base, tail: img.tail,
		origSectors: img.Size / blk.SectorSize, sectors: (img.Size + blk.SectorSize - 1) / blk.SectorSize})
}

// withStore makes a clone that is as long as the sender's.
func (c *makeIncoming) withStore(m *Manager, op *operation, d Device, s *cloneShape) error {
	s.spec = &CloneSpec{Base: c.base(), Names: []string{d.Name}, Size: c.header.Size, Labels: c.Labels}
	if err := s.plan(m, op); err != nil {
		return err
	}
	made := &s.devices[len(s.devices)-1]
	made.Record.Incoming = d.Record.Incoming
	return nil
}

// fill receives the rest of a stream, and gives what it was received into its name.
type fill struct {
	ReceiveSpec
	in     *rbddiff.Reader
	stream io.Reader
}

func (c *fill) kind() string { return "receive" }

func (c *fill) touches(*Manager) (claim, error) {
	return claim{objects: []string{c.Name, c.Name + incomingSuffix}}, nil
}

func (c *fill) plan(m *Manager, op *operation) error {
	o, err := m.object(c.Name + incomingSuffix)
	if err == nil && o.record.Incoming == nil {
		err = fmt.Errorf("%s is not an object that is being received", o.name)
	}
	if err == nil {
		err = m.free(c.Name)
	}
	if err != nil {
		return err
	}
	op.Add = steps{&receiveContent{o: o, in: c.in, stream: c.stream, unsealed: c.Unsealed, name: c.Name}}
	op.Then = steps{&renameDevice{From: o.name, To: c.Name}}
	if base := o.name + baseSuffix; m.standsOn(o, base) {
		op.Then = append(op.Then, &renameDevice{From: base, To: c.Name + baseSuffix})
	}
	op.Then = append(op.Then, &endIncoming{Name: c.Name})
	return nil
}
