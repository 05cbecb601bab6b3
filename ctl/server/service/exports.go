package service

import (
	"context"

	"udm/ctl"
)

// Export implements [ctl.Service].
func (s *Service) Export(ctx context.Context, r ctl.Export) (ctl.Exported, error) {
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return ctl.Exported{}, err
	}
	return s.sockets.Export(d, r)
}

// Unexport implements [ctl.Service].
func (s *Service) Unexport(ctx context.Context, r ctl.Unexport) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	return s.sockets.Unexport(r)
}

// Exported implements [ctl.Service].
func (s *Service) Exported(context.Context) ([]ctl.Exported, error) { return s.sockets.Exports(), nil }
