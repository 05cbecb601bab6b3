package luks

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/internal/secret"
	"udm/targets/crypt"
)

// Options control how containers are opened and created.
type Options struct {
	Limits Limits    // the zero value: DefaultLimits
	Rand   io.Reader // for salts and keys; nil: the system's
}

func (o Options) limits() Limits {
	if o.Limits == (Limits{}) {
		return DefaultLimits
	}
	return o.Limits
}

func (o Options) random(n int) ([]byte, error) {
	r := o.Rand
	if r == nil {
		r = rand.Reader
	}
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	return p, err
}

// Container is a disk with a header, or a detached header.
type Container struct {
	Header  *Header // as last read; each change reads it again
	store   store
	options Options
	v1      *luks1 // nil: version 2
	v2      *luks2
}

// AnySlot lets Unlock try all slots.
const AnySlot = -1

// Open reads the header on dev. The caller keeps ownership of dev.
func Open(e env.Env, dev blk.Device, o Options) (*Container, error) {
	c := &Container{store: store{e, dev}, options: o}
	return c, c.load()
}

// Is reports whether a device begins like a LUKS disk.
func Is(e env.Env, dev blk.Device) bool {
	first, err := (store{e, dev}).read(0, 512)
	return err == nil && string(first[:len(magic)]) == magic
}

// load reads the header. After an error the last one remains.
func (c *Container) load() error {
	first, err := c.store.read(0, 512)
	if err != nil {
		return err
	}
	n := Container{store: c.store, options: c.options}
	if string(first[:6]) == magic && first[6] == 0 && first[7] == 1 {
		n.v1, n.Header, err = read1(c.store)
	} else {
		n.v2, n.Header, err = read2(c.store)
	}
	switch {
	case err == nil:
		*c = n
	case string(first[:6]) != magic:
		err = fmt.Errorf("%v is not a LUKS disk, or its header is destroyed: %w", c.store.dev, err)
	}
	return err
}

// Key is the volume key of a disk.
type Key struct {
	secret *secret.Bytes
	Slot   int // the slot that it came from
}

// Close overwrites the key. Closing twice is allowed.
func (k *Key) Close() { k.secret.Close() }

// String does not reveal the key.
func (k *Key) String() string { return fmt.Sprintf("volume key of %d bits", k.secret.Len()*8) }

// Unlock returns the volume key from a slot, or from any slot, that the passphrase
// opens. Close the key after use.
func (c *Container) Unlock(passphrase []byte, slot int) (*Key, error) {
	slots, err := c.candidates(slot)
	if err != nil {
		return nil, err
	}
	var wrong []error
	for _, s := range slots {
		key, err := s.open(c.store, passphrase, &c.Header.Digest, c.options.limits())
		if err == nil {
			return &Key{secret.Take(key), s.ID}, nil
		}
		if !ErrWrongKey(err) {
			wrong = append(wrong, fmt.Errorf("key slot %d: %w", s.ID, err))
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return nil, errWrongKey
}

// candidates returns the slots to try, those with the highest priority first.
func (c *Container) candidates(slot int) ([]Slot, error) {
	if slot != AnySlot {
		s, err := c.Header.slot(slot)
		if err != nil {
			return nil, err
		}
		return []Slot{*s}, nil
	}
	slots := slices.DeleteFunc(slices.Clone(c.Header.Slots), func(s Slot) bool { return s.Priority == 0 })
	slices.SortStableFunc(slots, func(a, b Slot) int { return cmp.Compare(b.Priority, a.Priority) })
	return slots, nil
}

// Line returns the line for the target crypt that decrypts a device of the given
// number of sectors, and the size of the decrypted disk in sectors. If the segment has
// Integrity, the device is the one of IntegrityLine.
func (c *Container) Line(k *Key, device string, sectors uint64) (*crypt.Line, uint64, error) {
	s := c.Header.Segment
	size, step := s.Size/blk.SectorSize, uint64(s.SectorSize/blk.SectorSize)
	start := s.Offset / blk.SectorSize
	if s.Integrity != "" {
		start, size = 0, sectors
	}
	if start >= sectors || size > sectors-start {
		return nil, 0, fmt.Errorf("%s has %d sectors, but the encrypted data starts at %d and takes %d; is the disk truncated?", device, sectors, start, size)
	}
	if size == 0 {
		size = (sectors - start) / step * step
	}
	l := &crypt.Line{Cipher: s.Encryption, Key: hex.EncodeToString(k.secret.Bytes()), IVOffset: s.IVOffset, SectorSize: s.SectorSize, Place: dm.Place{Device: device, Start: start}}
	l.AllowDiscards = slices.Contains(c.Header.Flags, "allow-discards")
	if s.Integrity != "" {
		l, err := c.taggedLine(l)
		return l, sectors, err
	}
	return l, size, nil
}

// AddKey stores the volume key in a free slot under another passphrase and returns
// the slot. A zero KDF means the default.
func (c *Container) AddKey(k *Key, passphrase []byte, kdf KDF) (slot int, err error) {
	s, err := c.fresh(k, kdf)
	if err != nil {
		return 0, err
	}
	if err := s.fill(c.store, passphrase, k.secret.Bytes(), c.options.limits(), c.options.random); err != nil {
		return 0, err
	}
	return s.ID, c.commit(func() error { return c.put(s.ID, &s) })
}

// ChangeKey stores the volume key under a new passphrase in place of the slot that
// the key came from, and returns the slot that it is in now.
func (c *Container) ChangeKey(k *Key, passphrase []byte, kdf KDF) (slot int, err error) {
	old, err := c.Header.slot(k.Slot)
	if err != nil {
		return 0, err
	}
	gone := *old
	s, err := c.fresh(k, kdf)
	if err != nil {
		return 0, err
	}
	if err := s.fill(c.store, passphrase, k.secret.Bytes(), c.options.limits(), c.options.random); err != nil {
		return 0, err
	}
	if c.v2 != nil {
		s.ID, s.Priority = gone.ID, gone.Priority
	}
	err = c.commit(func() error {
		if c.v1 != nil {
			c.v1.set(gone.ID, nil)
		}
		return c.put(s.ID, &s)
	})
	if err == nil {
		err = c.wipe(gone.Area)
	}
	return s.ID, err
}

// RemoveKey removes a slot. It overwrites the key material first. The last slot is
// only removed with force: afterwards nobody can open the disk.
func (c *Container) RemoveKey(slot int, force bool) error {
	s, err := c.Header.slot(slot)
	if err != nil {
		return err
	}
	if len(c.Header.Slots) == 1 && !force {
		return fmt.Errorf("key slot %d is the last one; without it nobody can open the disk, so removing it has to be forced", slot)
	}
	if err := c.wipe(s.Area); err != nil {
		return err
	}
	return c.commit(func() error { return c.put(slot, nil) })
}

// Repair rewrites both copies of a header of version 2.
func (c *Container) Repair() error { return c.commit(func() error { return nil }) }

// wipe overwrites an area with random data.
func (c *Container) wipe(a Area) error {
	noise, err := c.options.random(int(a.Size))
	if err != nil {
		return err
	}
	return c.store.write(a.Offset, noise)
}

// commit changes the header and writes it. After an error the header is read from the
// disk again.
func (c *Container) commit(change func() error) error {
	err := change()
	switch {
	case err != nil:
	case c.v1 != nil:
		err = c.v1.write(c.store)
	default:
		err = c.v2.write(c.store, c.options.random)
	}
	return errors.Join(err, c.load())
}

// put stores s as the slot with a number; nil removes the slot.
func (c *Container) put(id int, s *Slot) error {
	if c.v1 != nil {
		c.v1.set(id, s)
		return nil
	}
	return c.v2.put(id, s)
}

// fresh returns a free slot for the key, with a new salt.
func (c *Container) fresh(k *Key, kdf KDF) (s Slot, err error) {
	if kdf.Type == "" {
		kdf = DefaultKDF(c.Header.Version)
	}
	if c.v1 != nil {
		if kdf.Type != "pbkdf2" {
			return s, errors.New("version 1 supports only pbkdf2")
		}
		s, err = c.v1.free(c.Header)
		kdf.Hash = s.Hash
	} else {
		s, err = c.v2.free(k.secret.Len())
	}
	if err != nil {
		return s, err
	}
	s.KDF = kdf
	if s.KDF.Salt, err = c.options.random(saltSize1); err != nil {
		return s, err
	}
	return s, s.KDF.check(c.options.limits())
}

// DefaultKDF is the key derivation of new slots: about a second of work.
func DefaultKDF(version int) KDF {
	if version == 1 {
		return KDF{Type: "pbkdf2", Hash: "sha256", Iterations: 2000000}
	}
	return KDF{Type: "argon2id", Time: 4, Memory: 256 << 10, CPUs: 4}
}
