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

// ReceiveSpec describes the object to create from a stream.
type ReceiveSpec struct {
	Name string `json:"name,omitempty"` // of the new object; "" for the name in the stream
	// Pool or File receives whole contents: the pool of a new volume, or a new file. Changes
	// since a checkpoint are stored where the checkpoint is.
	Pool string `json:"pool,omitempty"`
	File string `json:"file,omitempty"`
	// Base is the checkpoint: an object received before, or the absolute path of an image.
	// If it is "", the checkpoint is the object with the name in the stream.
	Base string `json:"base,omitempty"`
	// Labels are the labels of the new object.
	Labels map[string]string `json:"labels,omitempty"`
	// Unsealed accepts a stream without a checksum, as written by rbd.
	Unsealed bool `json:"unsealed,omitempty"`
	// Keep keeps the received part of an interrupted stream as NAME-incoming. Resume
	// continues it; the stream must then start where it was interrupted.
	Keep   bool `json:"keep,omitempty"`
	Resume bool `json:"resume,omitempty"`
}

// Received is the result of Receive.
type Received struct {
	Name string `json:"name"`
}

// incomingSuffix marks the name of an object while a stream is received into it.
const incomingSuffix = "-incoming"

// Receiving is the state of such an object while the stream arrives. Afterwards it is
// "incoming", if the part is kept.
const Receiving = "receiving"

// Receive creates a new read-only object from a stream of package rbddiff. The object appears
// when the stream is complete and its base is verified; otherwise nothing changes, except
// for the part to be kept.
//
// Receive runs two operations: the first creates NAME-incoming, the second fills and renames
// it. If the second is undone, a third operation removes the object, or the next start
// does.
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
		_ = m.removeAbandoned(m.ctx, s.Name) // if it fails, the next start tries again
	}
	return Received{s.Name}, err
}

// setReceiving records whether an object is being received, and reports whether that is a
// change.
func (m *Manager) setReceiving(name string, on bool) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.receiving[name]
	if on {
		m.receiving[name] = true
	} else {
		delete(m.receiving, name)
	}
	return was != on
}

func (m *Manager) isReceiving(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.receiving[name]
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

// beginReading reads the header of a stream, or resumes it where it was interrupted.
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

// incoming returns the position where the stream of an object was interrupted; nil stands for
// the start.
func (m *Manager) incoming(name string) (*rbddiff.Position, error) {
	in := m.devices.Record(name + incomingSuffix).Incoming
	if in == nil {
		return nil, refuse(syscall.ENXIO, "no part of %q has been received; start from the beginning", name)
	}
	return in.At, nil
}

// removeAbandoned removes the received part of an interrupted stream, unless it is to be kept
// or being received.
func (m *Manager) removeAbandoned(ctx context.Context, name string) error {
	busy := m.isReceiving(name)
	in := m.devices.Record(name + incomingSuffix).Incoming
	if busy || in == nil || in.Keep {
		return nil
	}
	if _, err := m.object(name + incomingSuffix); err != nil {
		return err // for example, its disk is missing; the next start tries again
	}
	return m.Remove(ctx, RemoveSpec{Name: name + incomingSuffix})
}

// removeAllAbandoned removes parts of streams that were interrupted by the end of the daemon,
// or could not be removed before.
func (m *Manager) removeAllAbandoned(ctx context.Context) (err error) {
	for _, d := range m.control.List() {
		if name, is := strings.CutSuffix(d.Name(), incomingSuffix); is {
			err = errors.Join(err, m.removeAbandoned(ctx, name))
		}
	}
	return err
}

// makeIncoming creates the object that receives a stream.
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

// base returns the name or path of the stream's base, or "" for whole contents.
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
		return refuse(syscall.EINVAL, "the stream has an image of %d bytes, which is not a positive multiple of the sector size", size)
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

// onBase creates a writable copy of the base, which must be read-only and have the contents
// of the sender's base.
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

// withStore creates a clone of the size in the stream.
func (c *makeIncoming) withStore(m *Manager, op *operation, d Device, s *cloneShape) error {
	s.spec = &CloneSpec{Base: c.base(), Names: []string{d.Name}, Size: c.header.Size, Labels: c.Labels}
	if err := s.plan(m, op); err != nil {
		return err
	}
	made := &s.devices[len(s.devices)-1]
	made.Record.Incoming = d.Record.Incoming
	return nil
}

// fill receives the rest of a stream and gives the object its final name.
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
		err = fmt.Errorf("%s is not being received", o.name)
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
