package volume

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"syscall"

	"udm/dm"
	"udm/env/hostfs"
)

// kept is Devices that are saved on a host: a file for each, with its minor
// number for a name.
type kept struct {
	all []savedDevice // as they were saved at the start
	c   *dm.Control
	fs  hostfs.FS
	dir string

	mu      sync.Mutex
	records map[*dm.Device]Record // guarded by mu
}

// savedDevice is such a file. Mapped devices are named by their numbers.
type savedDevice struct {
	Minor uint32
	Device
}

func newKept(c *dm.Control, fs hostfs.FS, dir string) (*kept, error) {
	k := &kept{c: c, fs: fs, dir: dir, records: map[*dm.Device]Record{}}
	if err := hostfs.MakeDir(k.fs, k.dir); err != nil {
		return nil, err
	}
	if err := k.fs.SyncDir(k.dir); err != nil {
		return nil, err
	}
	names, _ := k.fs.ReadDir(k.dir)
	var all []savedDevice
	for _, name := range names {
		if path.Ext(name) != ".json" {
			continue
		}
		var s savedDevice
		text, _ := k.fs.ReadFile(path.Join(k.dir, name))
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b savedDevice) int { return cmp.Compare(a.Minor, b.Minor) })
	for _, s := range all {
		d, err := c.Create(s.Name, "", int(s.Minor))
		if err != nil {
			return nil, err
		}
		k.record(d, s.Record)
	}
	k.all = all
	k.load()
	return k, nil
}

// load brings the tables back, snapshots before what is the way to write to their
// origins. One that cannot be loaded is left without.
func (k *kept) load() {
	for _, origins := range []bool{false, true} {
		for progress := true; progress; {
			progress = false
			for _, s := range k.all {
				d, err := k.c.Number(dm.Number{Major: dm.Major, Minor: s.Minor})
				if err != nil || len(s.Table) == 0 || d.Status().Live || !k.ready(s.Table, origins) {
					continue
				}
				err = dm.Exchange(context.Background(), []dm.Change{{Device: d, Specs: s.Table, Mode: dm.Mode{Write: !s.ReadOnly}}})
				progress = progress || err == nil
			}
		}
	}
}

func (k *kept) ready(specs []dm.Spec, origins bool) bool {
	lines, _ := k.c.ParseLines(specs)
	for _, l := range lines {
		for _, w := range l.Devices() {
			if w.Role == dm.Origin && !origins {
				return false
			}
			if d := k.c.Mapped(*w.Name); d != nil && !d.Status().Live {
				return false
			}
		}
	}
	return true
}

func (k *kept) Control() *dm.Control { return k.c }

func (k *kept) Record(name string) Record {
	d, err := k.c.Name(name)
	if err != nil {
		return Record{}
	}
	return k.recordOf(d)
}

func (k *kept) recordOf(d *dm.Device) Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.records[d]
}

func (k *kept) record(d *dm.Device, r Record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records[d] = r
}

func (k *kept) file(d *dm.Device) string { return fmt.Sprintf("%s/%d.json", k.dir, d.Number().Minor) }

// save makes the file of a device say what is true.
func (k *kept) save(d *dm.Device) error {
	specs, mode, _ := d.Loaded(false)
	return k.saveAs(d, Device{Name: d.Name(), Table: specs, ReadOnly: !mode.Write, Record: k.recordOf(d)})
}

// saveAs makes the file of a device say what will be true.
func (k *kept) saveAs(d *dm.Device, n Device) error {
	n.Table = k.lastingTable(n.Table)
	return hostfs.Replace(k.fs, k.file(d), savedDevice{d.Number().Minor, n})
}

func (k *kept) Create(ctx context.Context, ds []Device) error {
	for _, d := range ds {
		if err := k.create(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (k *kept) create(ctx context.Context, n Device) error {
	d, err := k.c.Create(n.Name, "", -1)
	if err != nil {
		return err
	}
	k.record(d, n.Record)
	if len(n.Table) > 0 {
		err = dm.Exchange(ctx, []dm.Change{{Device: d, Specs: k.lastingTable(n.Table), Mode: dm.Mode{Write: !n.ReadOnly}}})
	}
	if err == nil {
		err = k.save(d)
	}
	if err != nil {
		_, rerr := d.Remove(false)
		return errors.Join(err, rerr, k.unsave(d))
	}
	return nil
}

func (k *kept) unsave(d *dm.Device) error {
	if err := k.fs.Remove(k.file(d)); err != nil {
		return nil
	}
	return k.fs.SyncDir(k.dir)
}

func (k *kept) Swap(ctx context.Context, ds []Device, _ bool) error {
	cs := make([]dm.Change, len(ds))
	for i, n := range ds {
		d, err := k.c.Name(n.Name)
		if err != nil {
			return err
		}
		specs, mode, live := d.Loaded(false)
		cs[i] = dm.Change{Device: d, Specs: k.lastingTable(n.Table), Mode: dm.Mode{Write: !n.ReadOnly}}
		if live && !n.Reload && k.same(specs, n.Table) && mode.Write != n.ReadOnly {
			cs[i].Specs = nil
		}
	}
	for i, n := range ds {
		if err := k.saveAs(cs[i].Device, n); err != nil {
			return k.saveBack(err, cs[:i+1])
		}
	}
	if err := dm.Exchange(ctx, cs); err != nil {
		return k.saveBack(err, cs)
	}
	for i, c := range cs {
		k.record(c.Device, ds[i].Record)
	}
	return nil
}

// saveBack saves the state that is true after all, the last device first.
func (k *kept) saveBack(err error, cs []dm.Change) error {
	for _, c := range slices.Backward(cs) {
		if serr := k.save(c.Device); serr != nil {
			return errors.Join(err, serr, ErrUnsure)
		}
	}
	return err
}

func (k *kept) same(a, b []dm.Spec) bool {
	return slices.EqualFunc(a, b, func(a, b dm.Spec) bool {
		return a.Start == b.Start && a.Len == b.Len && a.Type == b.Type && k.lasting(a) == k.lasting(b)
	})
}

func (k *kept) lastingTable(specs []dm.Spec) []dm.Spec {
	specs = slices.Clone(specs)
	for i, s := range specs {
		specs[i].Params = k.lasting(s)
	}
	return specs
}

func (k *kept) lasting(s dm.Spec) string {
	l, err := k.c.ParseLine(s)
	if err != nil {
		return s.Params
	}
	for _, w := range l.Devices() {
		if u := k.c.Mapped(*w.Name); u != nil {
			*w.Name = u.Number().String()
		}
	}
	return l.String()
}

func (k *kept) Note(name string, r Record) error {
	d, err := k.c.Name(name)
	if err != nil {
		return err
	}
	was := k.recordOf(d)
	k.record(d, r)
	if err := k.save(d); err != nil {
		k.record(d, was)
		return errors.Join(err, k.save(d))
	}
	return nil
}

func (k *kept) Remove(_ context.Context, names []string) error {
	var ds []*dm.Device
	for _, name := range names {
		d, err := k.c.Name(name)
		if err != nil {
			continue
		}
		if d.Status().Opens > 0 {
			return dm.Errorf(syscall.EBUSY, "%s is open", name)
		}
		ds = append(ds, d)
	}
	for i, d := range ds {
		if err := k.unsave(d); err != nil {
			for _, d := range ds[:i+1] {
				if serr := k.save(d); serr != nil {
					err = errors.Join(err, serr, ErrUnsure)
				}
			}
			return err
		}
	}
	if err := k.c.RemoveTogether(ds); err != nil {
		return err
	}
	for _, d := range ds {
		k.record(d, Record{})
	}
	return nil
}

func (k *kept) Rename(_ context.Context, name, to string) error {
	d, err := k.c.Name(name)
	if err != nil {
		return err
	}
	if err := d.Rename(to); err != nil {
		return err
	}
	if err := k.save(d); err != nil {
		return errors.Join(err, d.Rename(name), k.save(d))
	}
	return nil
}

// step lets a message meet a crash or an error before and after it.
func (k *kept) step() error {
	if h, ok := k.fs.(hostFS); ok {
		return h.step()
	}
	return nil
}

func (k *kept) Message(_ context.Context, name, text string) (string, error) {
	d, err := k.c.Name(name)
	if err != nil {
		return "", err
	}
	if err := k.step(); err != nil {
		return "", err
	}
	reply, err := d.Message(0, text)
	if err == nil {
		err = k.step()
	}
	return reply, err
}
