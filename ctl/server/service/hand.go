package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"udm/blk"
	"udm/blk/leaf"
	"udm/ctl/server/handover"
	"udm/ctl/server/state"
	"udm/dm"
)

// mover is an opener that can hand its disks over.
type mover interface {
	Movable() error
	Hand() ([]leaf.Handed, error)
	Take([]leaf.Handed) error
	Taken()
}

// The names of the service's parts of a bundle.
const devicesPart, disksPart = "devices", "disks"

// Movable returns an error if what the service has cannot be handed over.
func (s *Service) Movable() error {
	m, ok := s.opener.(mover)
	if !ok {
		return errors.New("this daemon cannot hand its disks over; restart it")
	}
	if !s.restored.Load() {
		return errors.New("the devices are still being restored; try again later")
	}
	return m.Movable()
}

// Flush flushes every device that is not suspended, so that Hand has little to flush.
func (s *Service) Flush() error {
	var errs []error
	for _, d := range s.control.List() {
		if st := d.Status(); st.Live && !st.Suspended {
			if err := blk.FlushDevice(s.env, d); err != nil {
				errs = append(errs, fmt.Errorf("flushing %s: %w", st.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Describe puts into a bundle what is not saved of the devices.
func (s *Service) Describe(b *handover.Bundle) error { return b.Put(devicesPart, s.state.Hand()) }

// Hand, after Describe, closes the service, and puts into a bundle what another service of the same root
// goes on with. The front ends have handed over before.
func (s *Service) Hand(b *handover.Bundle) error {
	disks, err := s.opener.(mover).Hand()
	if err != nil {
		return err
	}
	var files []*os.File
	for i := range disks {
		for _, f := range []*os.File{disks[i].Read, disks[i].Write} {
			if f != nil {
				files = append(files, f)
			}
		}
	}
	if err := b.Put(disksPart, handed(disks), files...); err != nil {
		return err
	}
	return s.Close()
}

// handedDisk is a disk with the number of its files.
type handedDisk struct {
	leaf.Handed
	Reads, Writes bool
}

func handed(disks []leaf.Handed) (list []handedDisk) {
	for _, d := range disks {
		list = append(list, handedDisk{d, d.Read != nil, d.Write != nil})
	}
	return list
}

// RestoreFrom is Restore from a bundle. The error names a device that was live and is not.
// TakenOver follows.
func (s *Service) RestoreFrom(ctx context.Context, b *handover.Bundle) error {
	var list []state.Handed
	if _, _, err := b.Take(devicesPart, &list); err != nil {
		return err
	}
	s.state.Take(list)
	var disks []handedDisk
	files, _, err := b.Take(disksPart, &disks)
	if err != nil {
		return err
	}
	m, ok := s.opener.(mover)
	if !ok {
		return errors.New("this program cannot take disks over")
	}
	var open []leaf.Handed
	for _, d := range disks {
		for _, f := range []struct {
			is bool
			to **os.File
		}{{d.Reads, &d.Read}, {d.Writes, &d.Write}} {
			if f.is && len(files) > 0 {
				*f.to, files = files[0], files[1:]
			}
		}
		open = append(open, d.Handed)
	}
	if err := m.Take(open); err != nil {
		return err
	}
	if err := s.Restore(ctx); err != nil {
		return err
	}
	return s.state.Complete()
}

// TakenOver ends RestoreFrom, when the clients have their devices again.
func (s *Service) TakenOver() error {
	s.opener.(mover).Taken()
	return s.state.Taken()
}

// Waiting reports whether I/O waits in suspended devices, which only ends when they are
// resumed, or by FailSuspended. After that the service is of no more use but for Hand.
func (s *Service) Waiting() bool {
	return slices.ContainsFunc(s.control.List(), func(d *dm.Device) bool { return d.Status().Suspended && d.Account().Waiting > 0 })
}
