package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/env"
	errortarget "udm/targets/error"
	"udm/targets/linear"
	"udm/targets/striped"
	"udm/targets/zero"
)

// Open opens a volume, possibly a hidden one, that consists of linear, striped, error
// and zero segments, for reading or also for writing. Close the device before the
// disks. Closing does not flush.
func (a *Assembled) Open(e env.Env, name string, write bool) (blk.Device, error) {
	l := a.lvs[name]
	if l == nil {
		return nil, fmt.Errorf("the group %s has no volume %q", a.Name, name)
	}
	t := &tree{Assembled: a, options: TreeOptions{ReadOnly: !write}, made: map[string]bool{}}
	if err := t.plain(l, ""); err != nil {
		return nil, err
	}
	o := &opened{control: dm.NewControl(e, opener{a}, linear.Type(), striped.Type(), errortarget.Type(), zero.Type())}
	if err := o.open(t.devices, write); err != nil {
		return nil, errors.Join(err, o.control.Close())
	}
	return o, nil
}

// opened is an open volume, the only user of its control.
type opened struct {
	blk.Device
	control *dm.Control
}

func (o *opened) Close() error { return errors.Join(o.Device.Close(), o.control.Close()) }

// open makes the devices, and opens the last one.
func (o *opened) open(devices []Device, write bool) (err error) {
	var d *dm.Device
	for _, v := range devices {
		if d, err = o.control.Create(v.Name, v.UUID, -1); err != nil {
			return err
		}
		var specs []dm.Spec
		for _, l := range v.Table {
			specs = append(specs, dm.Spec{Start: l.Start, Len: l.Len, Type: l.Target(), Params: l.Line.String()})
		}
		if err := d.Load(specs, dm.Mode{Write: write}); err != nil {
			return err
		}
		if err := d.Resume(context.Background(), false); err != nil {
			return err
		}
	}
	o.Device, err = d.Open(write)
	return err
}

// opener is a dm.Opener of a group's disks, which stay open.
type opener struct{ *Assembled }

func (o opener) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	disks := o.byName()
	i := slices.IndexFunc(disks, func(d *Found) bool { return d.Name == name })
	if i < 0 {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "%s: not a disk of the group", name)
	}
	return kept{disks[i].Device}, dm.Number{Major: 7, Minor: uint32(i)}, nil
}

// kept is a device that somebody else closes.
type kept struct{ blk.Device }

func (kept) Close() error { return nil }
