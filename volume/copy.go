package volume

import (
	"context"
	"path/filepath"
	"syscall"

	"udm/blk"
)

// CopyOut copies the content of an object into a new file. The copy may or may not
// include what is written meanwhile; copy a snapshot for a consistent state.
func (m *Manager) CopyOut(ctx context.Context, name, path string) error {
	return m.run(ctx, &copyOut{name, path})
}

type copyOut struct{ name, path string }

func (c *copyOut) kind() string { return "copy" }

func (c *copyOut) touches(*Manager) (claim, error) {
	return claim{objects: []string{c.path}, shared: []string{c.name}}, nil
}

func (c *copyOut) plan(m *Manager, op *operation) error {
	o, err := m.object(c.name)
	switch {
	case err != nil:
		return err
	case !filepath.IsAbs(c.path):
		return refuse(syscall.EINVAL, "%s is not an absolute path", c.path)
	}
	op.Add = steps{
		&makeFiles{[]File{{Path: c.path, Size: o.sectors * blk.SectorSize}}},
		&copyContent{From: place{Device: c.name}, To: place{File: c.path}},
	}
	return nil
}

// CopyIn copies an image over the start of an object, including its zeroes. If it is
// interrupted it continues: an object with parts of both would be useless.
func (m *Manager) CopyIn(ctx context.Context, path, name string) error {
	return m.run(ctx, &copyIn{path, name})
}

type copyIn struct{ path, name string }

func (c *copyIn) kind() string { return "copy" }

func (c *copyIn) touches(m *Manager) (claim, error) {
	if _, err := m.object(c.name); err != nil {
		return claim{}, err
	}
	return claim{objects: []string{c.name}, shared: []string{c.path}}, nil
}

func (c *copyIn) plan(m *Manager, op *operation) error {
	o, err := m.object(c.name)
	if err == nil {
		err = m.whole(o)
	}
	if err == nil && !filepath.IsAbs(c.path) {
		err = refuse(syscall.EINVAL, "%s is not an absolute path", c.path)
	}
	if err != nil {
		return err
	}
	img, err := m.image(c.path)
	switch {
	case err != nil:
		return err
	case o.readOnly:
		return refuse(syscall.EACCES, "%s is read-only", o.name)
	case o.kind == Pool:
		return refuse(syscall.EINVAL, "%s is a pool; give a volume", o.name)
	case (img.Size+blk.SectorSize-1)/blk.SectorSize > o.sectors:
		return refuse(syscall.EFBIG, "%s has %d bytes, but %s only %d; resize it first", c.path, img.Size, o.name, o.sectors*blk.SectorSize)
	case len(img.tail) > 0:
		return refuse(syscall.EINVAL, "%s does not end at a sector boundary; extend it first: truncate -s %%512 %s", c.path, c.path)
	}
	op.Then = steps{&copyContent{From: place{File: c.path}, To: place{Device: c.name}, Zeroes: true}}
	op.entered = true // a failed copy has changed something
	return nil
}
