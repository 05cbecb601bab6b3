package activation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"udm/ctl"
	"udm/lvm"
)

// Mode says what writes to the devices of a group may change.
type Mode string

// The modes.
const (
	ReadOnly   Mode = "read-only"   // nothing
	Writable   Mode = "writable"    // the disks
	OverClones Mode = "over-clones" // clones of the disks, which are discarded at the end
)

// Options control Activate.
type Options struct {
	Mode    Mode
	Volume  string // only this volume and what it needs; "": all
	Partial bool   // also volumes with missing parts, which fail to be read
	Skip    bool   // also volumes that LVM activates only on request
}

// Report is the result of an activation.
type Report struct {
	Group   string    `json:"group"`
	UUID    string    `json:"uuid"`
	Mode    Mode      `json:"mode"`
	Disks   []string  `json:"disks"` // disks that the devices use
	Devices []Device  `json:"devices"`
	Skipped []Skipped `json:"skipped,omitempty"`
}

// Device is an activated device.
type Device struct {
	Name     string `json:"name"`
	UUID     string `json:"uuid"`
	Volume   string `json:"volume"`
	Sectors  uint64 `json:"sectors"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Hidden   bool   `json:"hidden,omitempty"` // it is only used by other devices
	Existed  bool   `json:"existed,omitempty"`
}

// Skipped is a volume that was left out.
type Skipped struct {
	Volume string `json:"volume"`
	Why    string `json:"why"`
}

// activation is an activation in progress.
type activation struct {
	s       ctl.Service
	g       *lvm.Assembled
	o       Options
	report  *Report
	pending map[string]bool // volumes that their pool has to create first, and the names of devices on them in tables
	undo    []func(context.Context) error
}

// Activate creates the devices of a group's volumes. If it fails, it removes the
// devices that it created.
func Activate(ctx context.Context, s ctl.Service, g *lvm.Assembled, o Options) (*Report, error) {
	a := &activation{s: s, g: g, o: o, pending: map[string]bool{},
		report: &Report{Group: g.Name, UUID: g.ID.String(), Mode: o.Mode, Disks: []string{}, Devices: []Device{}}}
	err := a.run(ctx)
	if err == nil {
		return a.report, nil
	}
	ctx = context.WithoutCancel(ctx)
	for _, undo := range slices.Backward(a.undo) {
		err = errors.Join(err, undo(ctx))
	}
	return nil, err
}

func (a *activation) run(ctx context.Context) error {
	devices, err := a.tree()
	if err != nil {
		return err
	}
	if a.o.Mode == OverClones {
		if err := a.clones(ctx, devices); err != nil {
			return err
		}
		if devices, err = a.tree(); err != nil {
			return err
		}
	}
	for _, d := range devices {
		if err := a.device(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	a.disks(devices)
	return a.anything()
}

// tree returns the devices to create, and records the volumes without devices.
func (a *activation) tree() ([]lvm.Device, error) {
	o := lvm.TreeOptions{Partial: a.o.Partial, Skip: a.o.Skip, ReadOnly: a.o.Mode == ReadOnly}
	if a.o.Volume != "" {
		o.Only = []string{a.o.Volume}
	}
	if a.o.Mode == OverClones {
		o.Below = map[string]string{}
		for pv := range a.g.Disks {
			o.Below[pv] = "/dev/mapper/" + a.cloneName(pv)
		}
	}
	devices, skipped, err := a.g.Tree(o)
	a.report.Skipped = nil
	for _, s := range skipped {
		a.skip(s.LV, s.Why.Error())
	}
	if err == nil && len(devices) == 0 {
		err = a.anything()
	}
	return devices, err
}

// disks records the disks of the group that devices use.
func (a *activation) disks(devices []lvm.Device) {
	used := named(devices)
	for pv, d := range a.g.Disks {
		if used[d.Name] || used["/dev/mapper/"+a.cloneName(pv)] {
			a.report.Disks = append(a.report.Disks, d.Name)
		}
	}
	slices.Sort(a.report.Disks)
}

// named returns the devices that tables name.
func named(devices []lvm.Device) map[string]bool {
	names := map[string]bool{}
	for _, d := range devices {
		for _, l := range d.Table {
			for _, w := range l.Devices() {
				names[*w.Name] = true
			}
		}
	}
	return names
}

// skip records, once, a volume that is left out.
func (a *activation) skip(volume, why string) {
	if !slices.ContainsFunc(a.report.Skipped, func(s Skipped) bool { return s.Volume == volume }) {
		a.report.Skipped = append(a.report.Skipped, Skipped{volume, why})
	}
}

// anything fails unless there is a device for users.
func (a *activation) anything() error {
	if slices.ContainsFunc(a.report.Devices, func(d Device) bool { return !d.Hidden }) {
		return nil
	}
	if len(a.report.Skipped) > 0 {
		s := a.report.Skipped[0]
		return fmt.Errorf("%s/%s cannot be activated: %s", a.g.Name, s.Volume, s.Why)
	}
	return fmt.Errorf("there is no volume in the group %s", a.g.Name)
}

// device creates a device, or finds the existing one.
func (a *activation) device(ctx context.Context, d lvm.Device) error {
	if a.left(d) {
		a.pending["/dev/mapper/"+d.Name] = true
		return nil
	}
	made, existed, err := a.create(ctx, createOf(d))
	if err != nil {
		return err
	}
	a.report.Devices = append(a.report.Devices, Device{d.Name, d.UUID, d.LV, made.Sectors, d.ReadOnly, hidden(d.UUID, d.Name) || !a.g.LV(d.LV).Visible(), existed})
	if d.Table[0].Target() == "thin-pool" {
		return a.pool(ctx, d)
	}
	return nil
}

// left reports whether a device has to be left out. The reason is recorded for the
// first one of its volume.
func (a *activation) left(d lvm.Device) bool {
	for _, l := range d.Table {
		for _, w := range l.Devices() {
			if a.pending[*w.Name] {
				a.skip(d.LV, "it depends on a volume that is left out")
				return true
			}
		}
	}
	if !a.pending[d.LV] {
		return false
	}
	a.skip(d.LV, "its pool has not created it yet; that happens when the group is activated for writing")
	return true
}

// create creates a device. An existing device must be the same.
func (a *activation) create(ctx context.Context, r ctl.Create) (d ctl.Device, existed bool, err error) {
	d, err = a.s.Device(ctx, ctl.Query{Ref: ctl.Ref{UUID: r.UUID}, With: []ctl.With{ctl.WithTable, ctl.WithDeps}})
	if err == nil {
		return d, true, same(d, r)
	}
	if !errors.Is(err, syscall.ENXIO) {
		return d, false, err
	}
	if d, err = a.s.Create(ctx, r); errors.Is(err, syscall.EBUSY) {
		err = fmt.Errorf("%w; a device that is not the group's may have its name", err)
	}
	if err == nil {
		a.undo = append(a.undo, func(ctx context.Context) error { return a.s.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: r.Name}}) })
	}
	return d, false, err
}

// hidden reports whether a device is only used by other devices.
func hidden(uuid, name string) bool {
	suffix := suffixOf(uuid)
	return suffix != "" && suffix != "pool" && (suffix != "tpool" || len(lvm.SplitName(name)) > 2)
}

// suffixOf returns what follows the ids in a uuid.
func suffixOf(uuid string) string {
	_, suffix, _ := strings.Cut(strings.TrimPrefix(uuid, uuidPrefix), "-")
	return suffix
}

const uuidPrefix = "LVM-"
