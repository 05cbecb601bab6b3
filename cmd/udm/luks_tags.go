package main

import (
	"errors"

	"udm"
	"udm/blk"
	"udm/env"
	"udm/luks"
	"udm/targets/integrity"
)

// luksTags formats the data of a new disk with authenticated sectors.
type luksTags struct {
	noWipe    bool
	disk      string
	container *luks.Container
	key       *luks.Key
	line      *integrity.Line // makes the superblock
}

// prepare is called while the disk is open.
func (t *luksTags) prepare(c *luks.Container, passphrase []byte, d blk.Device, disk string) error {
	device, err := diskName(disk)
	if err != nil {
		return err
	}
	t.disk, t.container = disk, c
	if t.line, err = c.FormatIntegrity(env.Real(), d, device); err != nil {
		return err
	}
	t.key, err = c.Unlock(passphrase, luks.AnySlot)
	return err
}

// format makes the superblock and fills the disk with zeroes.
func (t *luksTags) format() error {
	defer t.key.Close()
	if err := withIntegrity(t.line, 8, func(*udm.Device) error { return nil }); err != nil {
		return err
	}
	if t.noWipe {
		return nil
	}
	tables, err := tablesOf(t.container, t.key, t.disk, "disk", false)
	if err != nil {
		return err
	}
	s := udm.New()
	err = tables.create(s, "disk", false)
	if d, ok := s.Device("disk"); err == nil && ok {
		err = errors.Join(wipe(d), d.Sync())
	}
	return errors.Join(err, s.Close())
}
