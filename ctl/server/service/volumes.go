package service

import (
	"context"
	"io"
	"slices"

	"udm/ctl"
	"udm/volume"
)

// operate runs an operation on volumes once everything is restored.
func (s *Service) operate(ctx context.Context, do func(*volume.Manager) error) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	return do(s.volumes)
}

// Objects implements [ctl.Volumes].
func (s *Service) Objects(context.Context) ([]volume.Object, error) { return s.volumes.Objects(), nil }

// Object implements [ctl.Volumes].
func (s *Service) Object(ctx context.Context, r ctl.Object) (volume.Object, error) {
	if r.Settled {
		if err := s.settled(ctx); err != nil {
			return volume.Object{}, err
		}
	}
	return s.volumes.Object(r.Name)
}

// Labelled implements [ctl.Volumes].
func (s *Service) Labelled(ctx context.Context, r ctl.Labelled) ([]volume.Object, error) {
	if err := s.settled(ctx); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(s.volumes.Objects(), func(o volume.Object) bool { return o.Labels[r.Label] == "" }), nil
}

// Label implements [ctl.Volumes].
func (s *Service) Label(ctx context.Context, r volume.LabelSpec) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Label(ctx, r) })
}

// Operations implements [ctl.Volumes].
func (s *Service) Operations(context.Context) ([]volume.Operation, error) {
	return s.volumes.Operations(), nil
}

// CancelOperation implements [ctl.Volumes].
func (s *Service) CancelOperation(ctx context.Context, r ctl.Operation) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Cancel(ctx, r.ID) })
}

// Orphans implements [ctl.Volumes]. It waits until everything is restored, because
// before that anything may look like an orphan.
func (s *Service) Orphans(ctx context.Context) (list []volume.Orphan, err error) {
	err = s.operate(ctx, func(m *volume.Manager) (err error) {
		list, err = m.Orphans()
		return err
	})
	return list, err
}

// Clone implements [ctl.Volumes].
func (s *Service) Clone(ctx context.Context, r volume.CloneSpec) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Clone(ctx, r) })
}

// Snapshot implements [ctl.Volumes].
func (s *Service) Snapshot(ctx context.Context, r volume.SnapshotSpec) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Snapshot(ctx, r) })
}

// Merge implements [ctl.Volumes].
func (s *Service) Merge(ctx context.Context, r ctl.Object) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Merge(ctx, r.Name) })
}

// Rollback implements [ctl.Volumes].
func (s *Service) Rollback(ctx context.Context, r ctl.Object) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Rollback(ctx, r.Name) })
}

// Reset implements [ctl.Volumes].
func (s *Service) Reset(ctx context.Context, r ctl.Objects) error {
	names := r.Names
	if r.Name != "" {
		names = append([]string{r.Name}, names...)
	}
	return s.operate(ctx, func(m *volume.Manager) error { return m.Reset(ctx, names...) })
}

// Resize implements [ctl.Volumes].
func (s *Service) Resize(ctx context.Context, r volume.ResizeSpec) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Resize(ctx, r) })
}

// RenameObject implements [ctl.Volumes].
func (s *Service) RenameObject(ctx context.Context, r ctl.RenameObject) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Rename(ctx, r.Name, r.NewName) })
}

// Flatten implements [ctl.Volumes].
func (s *Service) Flatten(ctx context.Context, r ctl.ObjectFile) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Flatten(ctx, r.Name, r.File) })
}

// Commit implements [ctl.Volumes].
func (s *Service) Commit(ctx context.Context, r ctl.ObjectFile) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Commit(ctx, r.Name, r.File) })
}

// CopyOut implements [ctl.Volumes].
func (s *Service) CopyOut(ctx context.Context, r ctl.ObjectFile) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.CopyOut(ctx, r.Name, r.File) })
}

// CopyIn implements [ctl.Volumes].
func (s *Service) CopyIn(ctx context.Context, r ctl.ObjectFile) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.CopyIn(ctx, r.File, r.Name) })
}

// RemoveObject implements [ctl.Volumes].
func (s *Service) RemoveObject(ctx context.Context, r volume.RemoveSpec) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Remove(ctx, r) })
}

// Changes implements [ctl.Volumes].
func (s *Service) Changes(ctx context.Context, r volume.ChangesSpec) (c volume.Changes, err error) {
	err = s.operate(ctx, func(m *volume.Manager) (err error) {
		c, err = m.Changes(ctx, r)
		return err
	})
	return c, err
}

// Checkpoints implements [ctl.Volumes].
func (s *Service) Checkpoints(_ context.Context, r ctl.Object) ([]string, error) {
	return s.volumes.Checkpoints(r.Name)
}

// Send implements [ctl.Volumes].
func (s *Service) Send(ctx context.Context, r volume.SendSpec, w io.Writer) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.Send(ctx, r, w) })
}

// Receive implements [ctl.Volumes].
func (s *Service) Receive(ctx context.Context, r volume.ReceiveSpec, in io.Reader) (got volume.Received, err error) {
	err = s.operate(ctx, func(m *volume.Manager) (err error) {
		got, err = m.Receive(ctx, r, in)
		return err
	})
	return got, err
}

// CreatePool implements [ctl.Volumes].
func (s *Service) CreatePool(ctx context.Context, r volume.PoolSpec) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.CreatePool(ctx, r) })
}

// GrowPool implements [ctl.Volumes].
func (s *Service) GrowPool(ctx context.Context, r ctl.GrowPool) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.GrowPool(ctx, r.Name, r.Size, r.Metadata) })
}

// CreateVolume implements [ctl.Volumes].
func (s *Service) CreateVolume(ctx context.Context, r ctl.CreateVolume) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.CreateVolume(ctx, r) })
}

// RemoveOrphan implements [ctl.Volumes].
func (s *Service) RemoveOrphan(ctx context.Context, r volume.Orphan) error {
	return s.operate(ctx, func(m *volume.Manager) error { return m.RemoveOrphan(ctx, r) })
}
