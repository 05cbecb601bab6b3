package luks

import (
	"errors"
	"fmt"
	"io"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

// MaxBackup is the maximum size of a backup in bytes: two copies of the header and
// their key slots.
const MaxBackup = 128<<20 + 2*maxSize2

// Backup writes the header with all its key slots to w, in the format of cryptsetup's
// luksHeaderBackup. Whoever has the backup and a passphrase can read the disk, even
// after the passphrase was removed from the disk.
func (c *Container) Backup(w io.Writer) error {
	if c.end() > MaxBackup {
		return fmt.Errorf("a header of %d bytes is too long", c.end())
	}
	all, err := c.store.read(0, c.end())
	if err != nil {
		return err
	}
	_, err = w.Write(all)
	return err
}

// Restore writes a backup to dev. Unless forced it refuses the backup of another
// disk, and one with another data offset or key size.
func Restore(e env.Env, dev blk.Device, backup []byte, force bool, o Options) error {
	b, err := openBackup(e, backup, o)
	if err != nil {
		return fmt.Errorf("this is not a backup of a LUKS header: %w", err)
	}
	st := store{e, dev}
	if b.end() > st.size() || !b.detached() && b.Header.Segment.Offset >= st.size() {
		return fmt.Errorf("%v is too short for the header in the backup", dev)
	}
	if now, err := Open(e, dev, o); err == nil && !force {
		if err := b.fits(now); err != nil {
			return err
		}
	}
	head := uint64(binarySize)
	if b.v2 != nil {
		head = 2 * b.v2.size
	}
	if err := st.write(head, backup[head:b.end()]); err != nil {
		return err
	}
	if b.v1 != nil {
		if err := st.write(st.block(), backup[st.block():max(head, st.block())]); err != nil {
			return err
		}
		return st.write(0, backup[:st.block()])
	}
	if err := st.write(0, backup[:b.v2.size]); err != nil {
		return err
	}
	return st.write(b.v2.size, backup[b.v2.size:head])
}

// fits refuses a backup that would turn the disk into another one.
func (c *Container) fits(now *Container) error {
	a, b := c.Header, now.Header
	switch {
	case a.UUID != b.UUID:
		return errors.New("the backup is of another disk (another UUID); restoring it has to be forced")
	case a.Segment.Offset != b.Segment.Offset || a.Segment.KeySize != b.Segment.KeySize && len(b.Slots) > 0:
		return errors.New("the backup has another data offset or key size; restoring it has to be forced")
	}
	return nil
}

// openBackup reads a backup like a disk.
func openBackup(e env.Env, backup []byte, o Options) (*Container, error) {
	m := memdev.New(uint64(len(backup)) / blk.SectorSize)
	st := store{e, m}
	whole := uint64(len(backup)) / blk.SectorSize * blk.SectorSize
	if err := st.write(0, backup[:whole]); err != nil {
		return nil, err
	}
	c, err := Open(e, m, o)
	if err == nil && c.end() > whole {
		err = errors.New("it is incomplete")
	}
	return c, err
}
