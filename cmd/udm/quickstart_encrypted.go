package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/dm"
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

// encryptedAdvice is how to put a LUKS disk with LVM on the volume.
func (q *quickstart) encryptedAdvice() string {
	if !q.encrypted {
		return ""
	}
	plain := filepath.Join(q.dir, "plain.sock")
	return fmt.Sprintf(`
Put LVM in LUKS on vault, a thin volume over integrity:

  udm luks format '%[1]s'
  udm luks open '%[1]s' --socket %[2]s &
  udm lvm vgcreate --force vg 'nbd+unix:///disk?socket=%[2]s'
  udm lvm lvcreate -L 8 -n home vg 'nbd+unix:///disk?socket=%[2]s'
  udm lvm scan 'nbd+unix:///disk?socket=%[2]s'
`, nbdURI(q.dir, "vault"), plain)
}
