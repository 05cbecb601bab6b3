package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"syscall"

	"udm/blk"
)

// image is a file used as a base.
type image struct {
	Base
	tail []byte // the bytes behind its last whole sector
}

// image checks a file for use as a base. It refuses a file that is not a raw disk
// image, one that a device writes to, and an empty one.
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
		m.log.Info("the image does not end at a sector boundary; it is extended with zeroes", "image", path, "bytes", now.Size)
	}
	for _, w := range m.control.Writers(path) {
		return nil, refuse(syscall.EBUSY, "the device %s writes to %s; take a snapshot of %s instead", w.Name(), path, w.Name())
	}
	return i, nil
}

// look returns the present state of an image. It reads an image again only if it has
// changed since the last look.
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

// The samples of an image: their number and size in sectors. They are evenly spread
// and include its start and end.
const samples, sampleSectors = 64, 8

// fingerprint hashes samples of an image, from start to end. It refuses an image that
// is not raw.
func (m *Manager) fingerprint(path string) (_ string, err error) {
	d, err := m.files.Open(path, false)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	size := d.Limits().Size
	if size == 0 {
		return "", refuse(syscall.EINVAL, "the image %s is smaller than a sector (512 bytes)", path)
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

// headSectors is how much of a file is read to detect its format.
const headSectors = 64

func (m *Manager) head(d blk.Device) ([]byte, error) {
	p := make([]byte, min(d.Limits().Size, headSectors)*blk.SectorSize)
	return p, blk.ReadSectors(m.env, d, p, 0)
}

// same reports whether a base is unchanged: it has the same size, and either the same
// modification time or the same fingerprint.
func (b *Base) same(now Base) bool {
	return b.Size == now.Size && (b.ModTime == now.ModTime || b.Fingerprint == now.Fingerprint)
}

// Changed returns a one-line warning if the base of a device was changed outside the
// manager since the device was made, else "".
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
	return fmt.Sprintf("the base of %s, %s, was changed after %s was made: data that was not written to %s may be wrong; restore the old file", name, b.Path, name, name)
}

// uses lists the devices that use a file.
func (m *Manager) uses(path string) (names []string) {
	for _, d := range m.control.Users(path) {
		names = append(names, d.Name())
	}
	return names
}
