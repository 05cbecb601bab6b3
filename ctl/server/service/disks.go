package service

import (
	"context"
	"iter"

	"udm/ctl"
	"udm/ctl/server/state"
	"udm/dm"
)

// RegisterDisk implements [ctl.Service].
func (s *Service) RegisterDisk(ctx context.Context, d ctl.Disk) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	return s.state.Register(state.Disk{Major: d.Major, Minor: d.Minor, Path: d.Path})
}

// UnregisterDisk implements [ctl.Service].
func (s *Service) UnregisterDisk(ctx context.Context, n ctl.Number) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	return s.state.Unregister(dm.Number(n))
}

// Disks implements [ctl.Service].
func (s *Service) Disks(context.Context) ([]ctl.Disk, error) {
	list := make([]ctl.Disk, 0)
	for _, d := range s.state.Disks() {
		list = append(list, ctl.Disk{Number: ctl.Number{Major: d.Major, Minor: d.Minor}, Path: d.Path})
	}
	return list, nil
}

// Events implements [ctl.Service].
func (s *Service) Events(ctx context.Context) (iter.Seq2[ctl.Event, error], error) {
	return s.events.Subscribe(ctx), nil
}

// watch passes an event of the device mapper to subscribers.
func (s *Service) watch(e dm.Event) {
	n := ctl.Number(e.Number)
	s.events.Tell(ctl.Event{Kind: ctl.EventKind(e.Kind), Number: &n, Name: e.Name, Event: e.Nr})
}
