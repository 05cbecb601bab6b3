package snapshotter

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"udm/ctl"
	"udm/volume"
)

// removeVolume gives the space of a volume back to the pool, and that which no other
// volume has to the host. EBUSY: it is open.
func (s *Snapshotter) removeVolume(ctx context.Context, r record) error {
	if err := s.withdraw(ctx, r); err != nil {
		return err
	}
	_, err := s.client.Object(ctx, ctl.Object{Name: r.volume, Settled: true})
	if errors.Is(err, syscall.ENXIO) {
		return nil // it has been removed before
	}
	if err != nil {
		return err
	}
	d, err := s.client.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: r.volume}})
	switch {
	case err != nil:
		return err
	case d.Opens > 0:
		return syscall.EBUSY
	}
	if err := s.punch(ctx, r.volume); err != nil {
		s.Log.Warn("the space of a removed snapshot stays with the pool", "volume", r.volume, "reason", err)
	}
	return s.client.RemoveObject(ctx, volume.RemoveSpec{Name: r.volume, Kind: volume.Volume})
}

// punch discards all of a volume. Removing it would only free its blocks in the pool.
func (s *Snapshotter) punch(ctx context.Context, name string) error {
	path, err := s.file(ctx, name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size)
}

// removeLater notes, with the volume, that it is to be removed.
func (s *Snapshotter) removeLater(ctx context.Context, r record) error {
	r.Gone = true
	if err := s.client.Label(ctx, volume.LabelSpec{Name: r.volume, Labels: r.label()}); err != nil {
		return err
	}
	s.index.leave(&r)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// reapEvery is the interval at which volumes that are still open are tried again.
const reapEvery = time.Second

// reap removes what Remove could not, until ctx ends: also what an earlier run left.
func (s *Snapshotter) reap(ctx context.Context) {
	for ctx.Err() == nil {
		left, err := s.reapOnce(ctx)
		again := (<-chan time.Time)(nil)
		if left || err != nil {
			again = time.After(reapEvery)
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-again:
		}
	}
}

// reapOnce tries to remove all of them; left reports whether some are still open.
func (s *Snapshotter) reapOnce(ctx context.Context) (left bool, err error) {
	gone, err := s.index.left(ctx)
	for _, r := range gone {
		switch rerr := s.removeVolume(ctx, *r); {
		case rerr == nil:
			s.index.forget(r)
		case errors.Is(rerr, syscall.EBUSY):
			left = true
		default:
			err = errors.Join(err, rerr)
		}
	}
	return left, err
}

// Cleanup implements [snapshots.Cleaner]: it removes what is not in use any more now.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	_, err := s.reapOnce(ctx)
	return inWords(err)
}
