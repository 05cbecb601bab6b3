package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"udm/blk"
)

func itoa(i int) string { return strconv.Itoa(i) }

func cutSuffix(s, suffix string) (string, bool) { return strings.CutSuffix(s, suffix) }

// noteSuffix is appended to the name of a store that is kept without its device, to
// name the file that records its base.
const noteSuffix = ".base"

// note is the file that records which base a store belongs to.
func note(store string, b *Base) File {
	text, _ := json.Marshal(b)
	size := (uint64(len(text)) + blk.SectorSize - 1) / blk.SectorSize * blk.SectorSize
	return File{Path: store + noteSuffix, Size: size, Text: text}
}

// reuse checks an existing store. It refuses a file that is not a store, is in use,
// or belongs to another base.
func (m *Manager) reuse(path string, b *Base) error {
	if _, err := m.files.Stat(path); err != nil {
		return nil
	}
	if us := m.uses(path); len(us) > 0 {
		return refuse(syscall.EBUSY, "%s is the store of %s; give another file", path, us[0])
	}
	head, err := m.headOf(path)
	if err == nil {
		err = emptyOr(path, storeMagic, head)
	}
	if err != nil {
		return err
	}
	was, err := m.noted(path)
	if err != nil || was == nil {
		return err
	}
	if b == nil || was.Path != b.Path && !m.files.Same(was.Path, b.Path) || !was.same(*b) {
		return refuse(syscall.ESTALE, "the store %s belongs to another version of %s; give the original image, or another store", path, was.Path)
	}
	return nil
}

func (m *Manager) headOf(path string) (_ []byte, err error) {
	d, err := m.files.Open(path, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return m.head(d)
}

// noted returns the base that a store belongs to, or nil if that is not recorded.
func (m *Manager) noted(store string) (*Base, error) {
	if _, err := m.files.Stat(store + noteSuffix); err != nil {
		return nil, nil
	}
	text, err := m.headOf(store + noteSuffix)
	if err != nil {
		return nil, err
	}
	b := new(Base)
	return b, json.Unmarshal(bytes.TrimRight(text, "\x00"), b)
}

// RemoveOrphan removes an orphan that Orphans lists.
func (m *Manager) RemoveOrphan(ctx context.Context, o Orphan) error {
	return m.run(ctx, &removeOrphan{o})
}

type removeOrphan struct{ Orphan }

func (c *removeOrphan) kind() string { return "remove orphan" }

func (c *removeOrphan) touches(*Manager) (claim, error) {
	if c.Pool != "" {
		return claim{objects: []string{c.Pool}}, nil
	}
	return claim{objects: []string{c.File}}, nil
}

func (c *removeOrphan) plan(m *Manager, op *operation) error {
	list, err := m.Orphans()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(o Orphan) bool { return o.File == c.File && o.Pool == c.Pool && o.ID == c.ID }) {
		return refuse(syscall.EBUSY, "%s is not an orphan; udm orphans lists them", c.Orphan)
	}
	if c.Pool != "" {
		op.Then = steps{&deleteVolume{Pool: c.Pool, ID: c.ID}}
		return nil
	}
	op.Then = steps{&removeFiles{Paths: []string{c.File, c.File + noteSuffix}}}
	return nil
}
