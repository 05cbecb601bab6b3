package service

import (
	"context"

	"udm/ctl"
	"udm/ctl/server/attach"
)

// The commands of package attach, with devices named by users.

// Mount implements [ctl.Service].
func (s *Service) Mount(ctx context.Context, r ctl.Mount) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	if r.Numbered {
		return s.kernel.MountNumbered(r.Dir)
	}
	return s.kernel.Mount(r.Dir)
}

// Unmount implements [ctl.Service].
func (s *Service) Unmount(ctx context.Context, r ctl.Mount) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	return s.kernel.Unmount(r.Dir, r.Lazy)
}

// Mounts implements [ctl.Service].
func (s *Service) Mounts(context.Context) ([]ctl.Mount, error) { return s.kernel.Mounts(), nil }

// Attach implements [ctl.Service].
func (s *Service) Attach(ctx context.Context, r ctl.Attach) (ctl.Attachment, error) {
	if err := attach.CheckDriver(r.Driver); err != nil {
		return ctl.Attachment{}, err
	}
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return ctl.Attachment{}, err
	}
	return s.kernel.Attach(d, r.Driver)
}

// Detach implements [ctl.Service].
func (s *Service) Detach(ctx context.Context, r ctl.Ref) error {
	d, err := s.begin(ctx, r)
	if err != nil {
		return err
	}
	return s.kernel.Detach(d)
}

// Attachments implements [ctl.Service].
func (s *Service) Attachments(context.Context) ([]ctl.Attachment, error) {
	return s.kernel.Attachments(), nil
}

// FrontEnds implements [ctl.Service].
func (s *Service) FrontEnds(context.Context) ([]ctl.FrontEnd, error) {
	return s.FrontEnd.Status(), nil
}
