package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"udm/containers/filesystem"
	"udm/ctl"
	"udm/volume"
)

// base is the volume with an empty file system, which is made when it is first needed.
// It gets its name when it is complete.
func (s *Snapshotter) base(ctx context.Context, t filesystem.Type) (string, error) {
	s.bases.Lock()
	defer s.bases.Unlock()
	name := fmt.Sprintf("%s-%s-%d", s.Config.Pool.Name, t, s.Size)
	o, err := s.client.Object(ctx, ctl.Object{Name: name, Settled: true})
	switch {
	case err == nil && o.Pool != s.Config.Pool.Name:
		return "", fmt.Errorf("%s is not a volume of the pool %s; rename it: udm rename %[1]s OTHER", name, s.Config.Pool.Name)
	case err == nil || !errors.Is(err, syscall.ENXIO):
		return name, err
	}
	if err := s.pool.Ensure(ctx); err != nil {
		return "", err
	}
	return name, s.makeBase(ctx, name, t)
}

func (s *Snapshotter) makeBase(ctx context.Context, name string, t filesystem.Type) error {
	raw := s.Prefix + "-new-" + string(t)
	err := s.client.RemoveObject(ctx, volume.RemoveSpec{Name: raw, Kind: volume.Volume}) // left by a kill
	if err != nil && !errors.Is(err, syscall.ENXIO) {
		return err
	}
	if err := s.client.CreateVolume(ctx, volume.VolumeSpec{Pool: s.Config.Pool.Name, Name: raw, Size: s.Size}); err != nil {
		return err
	}
	path, err := s.file(ctx, raw)
	if err == nil {
		err = t.Make(ctx, path)
	}
	if err == nil {
		err = t.Empty(ctx, path)
	}
	if err != nil {
		return err
	}
	err = s.client.RenameObject(ctx, ctl.RenameObject{Name: raw, NewName: name})
	if errors.Is(err, syscall.EEXIST) { // another snapshotter on this pool was faster
		return s.client.RemoveObject(ctx, volume.RemoveSpec{Name: raw, Kind: volume.Volume})
	}
	return err
}
