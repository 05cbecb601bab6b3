package activation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"udm/ctl"
	"udm/dm"
	"udm/lvm"
	"udm/volume"
)

// The layers below a group that is activated over clones: a read-only disk, and its
// clone.
const (
	diskLayer  = "disk"
	cloneLayer = "clone"
)

func (a *activation) cloneName(pv string) string { return lvm.DeviceName(a.g.Name, pv, cloneLayer) }

// clones creates the clones of the disks that devices use.
func (a *activation) clones(ctx context.Context, devices []lvm.Device) error {
	used := named(devices)
	for _, pv := range slices.Sorted(maps.Keys(a.g.Disks)) {
		if used["/dev/mapper/"+a.cloneName(pv)] {
			if err := a.clone(ctx, pv); err != nil {
				return fmt.Errorf("%s: %w", a.g.Disks[pv].Name, err)
			}
		}
	}
	return nil
}

func (a *activation) clone(ctx context.Context, pv string) error {
	disk := a.g.Disks[pv]
	base := ctl.Create{
		Name: lvm.DeviceName(a.g.Name, pv, diskLayer), UUID: lvm.DeviceUUID(a.g.ID, a.g.PV(pv).ID, diskLayer), ReadOnly: true,
		Table: fmt.Sprintf("0 %d linear %s 0\n", disk.Device.Limits().Size, dm.QuoteWord(disk.Name)),
	}
	if _, _, err := a.create(ctx, base); err != nil {
		return err
	}
	name := a.cloneName(pv)
	d, err := a.s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: name}, With: []ctl.With{ctl.WithDeps}})
	if err == nil {
		if !on(d, base.Name) {
			return fmt.Errorf("%s exists already and is not a clone of %s", name, base.Name)
		}
		return nil
	}
	if !errors.Is(err, syscall.ENXIO) {
		return err
	}
	if err := a.s.Clone(ctx, volume.CloneSpec{Base: base.Name, Names: []string{name}}); err != nil {
		return err
	}
	a.undo = append(a.undo, func(ctx context.Context) error { return a.s.RemoveObject(ctx, volume.RemoveSpec{Name: name}) })
	return nil
}

// on reports whether a device uses another directly.
func on(d ctl.Device, name string) bool {
	return slices.ContainsFunc(d.Deps, func(dep ctl.Dep) bool { return dep.Map == name })
}
