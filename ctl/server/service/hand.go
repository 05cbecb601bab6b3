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
	Base(blk.Number) string
	Remote(blk.Number) bool
	Hand(bases map[string]bool) ([]leaf.Handed, error)
	Take([]leaf.Handed) error
	Taken()
}

// The names of the service's parts of a bundle. DevicesPart has no files.
const DevicesPart, disksPart = "devices", "disks"

// Movable returns an error if what the service has cannot be handed over.
func (s *Service) Movable() error {
	m, ok := s.opener.(mover)
	if !ok {
		return errors.New("this daemon cannot hand its disks over; restart it")
	}
	if !s.restored.Load() {
		return errors.New("the devices are still being restored; try again later")
	}
	if err := m.Movable(); err != nil {
		return err
	}
	for _, d := range s.control.List() {
		if d.Limits().ProcessMemory {
			return fmt.Errorf("%s keeps writes in the memory of this process (snapshots with store N do) and ends with it; copy what you need first (udm cp), then remove it", d.Name())
		}
	}
	return nil
}

// Flush flushes every device that is not suspended, so that little is left to be written when
// devices are closed.
func (s *Service) Flush() error { return s.flush(func(*dm.Device) bool { return true }) }

// flushedTogether is how many devices are flushed side by side.
const flushedTogether = 64

func (s *Service) flush(which func(*dm.Device) bool) error {
	ds := slices.DeleteFunc(s.control.List(), func(d *dm.Device) bool {
		st := d.Status()
		return !which(d) || !st.Live || st.Suspended
	})
	var errs []error
	for some := range slices.Chunk(ds, flushedTogether) {
		for i, st := range blk.FlushDevices(s.env, some) {
			if err := st.Err(); err != nil {
				errs = append(errs, fmt.Errorf("flushing %s: %w", some[i].Name(), err))
			}
		}
	}
	return errors.Join(errs...)
}

// Hand closes the devices of a group, and puts into a bundle what another service of the same
// root goes on with. Front ends have handed over their clients before; those of the ublk
// driver connect again. The end of a device writes its metadata. Data
// in files stay with the operating system, so only remote disks are flushed.
func (s *Service) Hand(b *handover.Bundle, g handover.Group) error {
	s.sockets.Leave(g)
	s.kernel.Leave(g)
	m := s.opener.(mover)
	err := s.flush(func(d *dm.Device) bool { return g.Has(d.Number().Minor) && s.remote(m, d) })
	if err != nil {
		return err
	}
	if err := errors.Join(b.Put(DevicesPart, s.state.Hand(g)), s.handKeys(b)); err != nil {
		return err
	}
	disks, err := m.Hand(s.bases(m, g))
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
	return s.Drop(g)
}

// among returns the devices of a group that are there.
func (s *Service) among(g handover.Group) []*dm.Device {
	return slices.DeleteFunc(s.control.List(), func(d *dm.Device) bool { return !g.Has(d.Number().Minor) })
}

// leaves are the disks that a device has open, whether its tables are live.
func leaves(d *dm.Device) []blk.Number {
	return slices.DeleteFunc(append(d.Deps(false), d.Deps(true)...), func(n blk.Number) bool { return n.Major == dm.Major })
}

// remote reports whether a device stands on a disk that is no file.
func (s *Service) remote(m mover, d *dm.Device) bool { return slices.ContainsFunc(leaves(d), m.Remote) }

// bases are what the disks of a group stand on.
func (s *Service) bases(m mover, g handover.Group) map[string]bool {
	if g == nil {
		return nil
	}
	bases := make(map[string]bool)
	for _, d := range s.among(g) {
		for _, n := range leaves(d) {
			bases[m.Base(n)] = true
		}
	}
	return bases
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

// Prepare is the first part of a Restore from bundles: it makes the devices, without tables.
// Whoever opens one waits until it is taken over. Take follows for each bundle, and Complete.
func (s *Service) Prepare() error {
	return errors.Join(s.state.Expect(), s.restoreLimits(), s.sockets.Restore())
}

// Take opens the devices of a bundle. The error names those that were live and are not: see
// Drop. taken is to be called when their clients are served.
func (s *Service) Take(ctx context.Context, b *handover.Bundle) (g handover.Group, taken func() error, err error) {
	var list []state.Handed
	if _, _, err := b.Take(DevicesPart, &list); err != nil {
		return nil, nil, err
	}
	open, err := takeDisks(b)
	if err == nil {
		err = s.takeKeys(b)
	}
	if err != nil {
		return nil, nil, err
	}
	m, ok := s.opener.(mover)
	if !ok {
		return nil, nil, errors.New("this program cannot take disks over")
	}
	g = make(handover.Group)
	for _, h := range list {
		g[h.Minor] = true
	}
	err = errors.Join(m.Take(open), s.state.Take(ctx, list))
	return g, func() error {
		m.Taken()
		return s.state.Taken(list)
	}, err
}

// Drop closes devices that Take could not take.
func (s *Service) Drop(g handover.Group) error { return s.control.RemoveAmong(s.among(g)) }

func takeDisks(b *handover.Bundle) (open []leaf.Handed, err error) {
	var disks []handedDisk
	files, _, err := b.Take(disksPart, &disks)
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
	return open, err
}

// Returns begins to serve again what virtual machines use of devices that were taken over.
func (s *Service) Returns() { s.sockets.Retry() }

// ComeNoMore has whoever waits for a device that is still elsewhere fail.
func (s *Service) ComeNoMore() { s.state.ComeNoMore() }

// Complete ends what Prepare has begun: what was not handed over is restored from what is
// saved, operations on volumes go on, and commands that change something may come.
func (s *Service) Complete(ctx context.Context) error {
	err := s.state.Complete(ctx)
	s.Returns()
	s.kernel.Retry()
	err = errors.Join(err, s.volumes.Recover(ctx))
	s.settle(ctx)
	return err
}

// Waiting reports whether I/O waits in suspended devices, which only ends when they are
// resumed, or by FailSuspended. After that the service is of no more use but for Hand.
func (s *Service) Waiting() bool {
	return slices.ContainsFunc(s.control.List(), func(d *dm.Device) bool { return d.Status().Suspended && d.Account().Waiting > 0 })
}
