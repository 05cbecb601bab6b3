package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/dm"
	"udm/env"
	"udm/targets/integrity"
)

// The sizes of the disk below an encrypted one, and of the metadata and data of the pool on it, in
// sectors.
const (
	safeSectors     = 64 << 20 / blk.SectorSize
	safeMetaSectors = 8 << 10
	safeDataSectors = 96 << 10
)

// vault creates what is missing of a thin volume over an integrity device, for a LUKS disk.
func (q *quickstart) vault(ctx context.Context, s *service.Service) error {
	disk := filepath.Join(q.dir, "safe.img")
	sectors, err := q.safe(disk)
	if err != nil {
		return err
	}
	for _, d := range [][2]string{
		{"safe", fmt.Sprintf("0 %d integrity %s 0 4 J 1 internal_hash:crc32c", sectors, dm.QuoteWord(disk))},
		{"safe-meta", fmt.Sprintf("0 %d linear /dev/mapper/safe 0", safeMetaSectors)},
		{"safe-data", fmt.Sprintf("0 %d linear /dev/mapper/safe %d", safeDataSectors, safeMetaSectors)},
		{"safe-pool", fmt.Sprintf("0 %d thin-pool /dev/mapper/safe-meta /dev/mapper/safe-data 128 0", safeDataSectors)},
		{"vault", fmt.Sprintf("0 %d thin /dev/mapper/safe-pool 0", safeSectors)},
	} {
		if _, err := s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: d[0]}}); err == nil {
			continue
		}
		if d[0] == "vault" {
			_, err := s.Message(ctx, ctl.Message{Ref: ctl.Ref{Name: "safe-pool"}, Text: "create_thin 0"})
			if err != nil && dm.ErrnoOf(err) != syscall.EEXIST {
				return err
			}
		}
		if _, err := s.Create(ctx, ctl.Create{Name: d[0], Table: d[1]}); err != nil {
			return fmt.Errorf("%s: %w", d[0], err)
		}
	}
	return nil
}

// safe returns how many sectors an integrity disk provides, which it makes if there is none.
func (q *quickstart) safe(disk string) (uint64, error) {
	if _, err := os.Stat(disk); !errors.Is(err, fs.ErrNotExist) {
		s, err := superblock(disk)
		if err != nil {
			return 0, err
		}
		return s.Provided, nil
	}
	unfinished := disk + ".new"
	if err := sparse(unfinished, safeSectors); err != nil {
		return 0, err
	}
	l := integrity.NewLine(dm.Place{Device: unfinished})
	l.Hash, l.FixPadding = "crc32c", true
	s, err := formatIntegrity(l, unfinished, true)
	if err != nil {
		return 0, err
	}
	return s.Provided, os.Rename(unfinished, disk)
}

// blank reports whether nothing is at the beginning of a device.
func blank(s *service.Service, name string) (is bool, err error) {
	p := make([]byte, 1<<20)
	err = withMapped(s, name, false, func(d blk.Device) error { return blk.ReadSectors(env.Real(), d, p, 0) })
	return !slices.ContainsFunc(p, func(b byte) bool { return b != 0 }), err
}

// encryptedAdvice is how to put a LUKS disk with LVM on the volume, or to open what is on it: the
// commands that make it would overwrite that.
func (q *quickstart) encryptedAdvice(s *service.Service) (string, error) {
	if !q.encrypted {
		return "", nil
	}
	vault, plain := nbdURI(q.dir, "vault"), filepath.Join(q.dir, "plain.sock")
	open := fmt.Sprintf("  udm luks open '%s' --socket %s &\n", vault, plain)
	scan := fmt.Sprintf("  udm lvm scan 'nbd+unix:///disk?socket=%s'\n", plain)
	empty, err := blank(s, "vault")
	if err != nil || !empty {
		return "\nOpen the LUKS disk on vault, and see what is in it:\n\n" + open + scan, err
	}
	return fmt.Sprintf(`
Put LVM in LUKS on vault, a thin volume over integrity, which loses what is on it:

  udm luks format '%[1]s'
%[2]s  udm lvm vgcreate --force vg 'nbd+unix:///disk?socket=%[3]s'
  udm lvm lvcreate -L 8 -n home vg 'nbd+unix:///disk?socket=%[3]s'
%[4]s`, vault, open, plain, scan), nil
}
