package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/snapshot"
	"udm/targets/thin"
)

// image is a file that something is to stand on.
type image struct {
	Base
	tail []byte // what is behind its last whole sector
}

// image looks at an image and refuses what is none: a file in a format that is
// not raw, one that a device writes to, or an empty one.
func (m *Manager) image(path string) (*image, error) {
	now, err := m.look(path)
	if err != nil {
		return nil, err
	}
	i := &image{Base: now}
	if now.Size%blk.SectorSize != 0 {
		if i.tail, err = m.files.ReadTail(path); err != nil {
			return nil, err
		}
		m.log.Info("the image ends in the middle of a sector; zeroes are behind its end", "image", path, "bytes", now.Size)
	}
	for _, u := range m.uses(path) {
		if u.writes {
			return nil, refuse(syscall.EBUSY, "the device %s writes to %s; take a snapshot of %s instead", u.name, path, u.name)
		}
	}
	return i, nil
}

// look tells what an image is like now. One that has not changed since it was
// looked at last is not read again.
func (m *Manager) look(path string) (Base, error) {
	st, err := m.files.Stat(path)
	if err != nil {
		return Base{}, fmt.Errorf("image %s: %w", path, err)
	}
	m.mu.Lock()
	known, ok := m.bases[path]
	m.mu.Unlock()
	if ok && known.Size == st.Size && known.ModTime == st.ModTime {
		return known, nil
	}
	b := Base{Path: path, Size: st.Size, ModTime: st.ModTime}
	if b.Fingerprint, err = m.fingerprint(path); err != nil {
		return b, err
	}
	m.mu.Lock()
	m.bases[path] = b
	m.mu.Unlock()
	return b, nil
}

// Samples of an image: so many pieces of so many sectors, evenly spread, the first
// and last of the image among them.
const samples, sampleSectors = 64, 8

// fingerprint hashes samples of an image, which it reads from its beginning to
// its end, and refuses one that is not raw.
func (m *Manager) fingerprint(path string) (_ string, err error) {
	d, err := m.files.Open(path, false)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	size := d.Limits().Size
	if size == 0 {
		return "", refuse(syscall.EINVAL, "the image %s is shorter than a sector", path)
	}
	head, err := m.head(d)
	if err != nil {
		return "", err
	}
	if err := raw(path, head); err != nil {
		return "", err
	}
	h := sha256.New()
	p := make([]byte, min(size, sampleSectors)*blk.SectorSize)
	last := size - min(size, sampleSectors)
	for i := range uint64(samples) {
		at := last / (samples - 1) * i
		if i == samples-1 {
			at = last
		}
		if err := blk.ReadSectors(m.env, d, p, at); err != nil {
			return "", fmt.Errorf("image %s: %w", path, err)
		}
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// headSectors is how much of a file tells its format.
const headSectors = 64

func (m *Manager) head(d blk.Device) ([]byte, error) {
	p := make([]byte, min(d.Limits().Size, headSectors)*blk.SectorSize)
	return p, blk.ReadSectors(m.env, d, p, 0)
}

// same reports whether a base is as it was: of the same size, and either not
// written to since or of the same content as far as the samples tell.
func (b *Base) same(now Base) bool {
	return b.Size == now.Size && (b.ModTime == now.ModTime || b.Fingerprint == now.Fingerprint)
}

// Changed tells of a device whose base was changed behind the manager's back
// since it was made, in one line; "": it was not.
func (m *Manager) Changed(name string) string {
	b := m.devices.Record(name).Base
	if b == nil {
		return ""
	}
	now, err := m.look(b.Path)
	switch {
	case err != nil:
		return fmt.Sprintf("the base of %s cannot be read: %v", name, err)
	case b.same(now):
		return ""
	}
	return fmt.Sprintf("the base of %s, %s, was changed after %s was made: what was not written to %s may be wrong; put the old file back", name, b.Path, name, name)
}

// use is that a device has a file or device in its table.
type use struct {
	name   string
	writes bool
}

// uses lists who uses a file.
func (m *Manager) uses(path string) []use {
	same := make(map[string]bool)
	var us []use
	for _, d := range m.control.List() {
		specs, mode, _ := d.Loaded(false)
		for _, s := range specs {
			if is, writes := m.usesIn(s, path, same); is {
				us = append(us, use{d.Name(), writes && mode.Write})
				break
			}
		}
	}
	return us
}

// usesIn looks for a file in a line of a table. same remembers which words mean
// it.
func (m *Manager) usesIn(s dm.Spec, path string, same map[string]bool) (is, writes bool) {
	l, err := m.control.ParseLine(s)
	if err != nil {
		return false, false
	}
	for _, w := range l.Devices() {
		is, known := same[*w.Name]
		if !known {
			is = *w.Name == path || mapped(*w.Name) == "" && m.files.Same(*w.Name, path)
			same[*w.Name] = is
		}
		if !is {
			continue
		}
		switch l := l.(type) {
		case *snapshot.Line:
			return true, w.Name != &l.Origin
		case *thin.ThinLine:
			return true, false
		}
		return true, true
	}
	return false, false
}
