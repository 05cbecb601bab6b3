package activation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"syscall"

	"udm/ctl"
	"udm/dm"
	"udm/lvm"
)

// Live is a group with active volumes while its text is changed.
type Live struct {
	s      ctl.Service
	ctx    context.Context
	before *lvm.Assembled
	active map[lvm.UUID]bool // volumes with devices
	tables map[string]string // by uuid: the devices' tables before the change
	names  map[string]string // by the paths before the change: the new paths
	disks  []string          // devices over the group's disks
}

// changeLayer is a device over a disk of the group, through which its text is changed.
// It also keeps others from changing the group meanwhile.
const changeLayer = "change"

// Examine returns the active volumes of a group, or nil if there are none. It fails
// unless all devices of the group are as Activate would make them for writing.
func Examine(ctx context.Context, s ctl.Service, g *lvm.Assembled) (*Live, error) {
	all, err := s.List(ctx, ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithDeps}})
	if err != nil {
		return nil, err
	}
	l := &Live{s: s, ctx: ctx, before: g, active: map[lvm.UUID]bool{}, tables: map[string]string{}, names: map[string]string{}}
	tree, _, err := g.Tree(lvm.TreeOptions{Skip: true})
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if !strings.HasPrefix(d.UUID, lvm.DeviceUUID(g.ID, "", "")) || suffixOf(d.UUID) == changeLayer {
			continue
		}
		i := slices.IndexFunc(tree, func(t lvm.Device) bool { return t.UUID == d.UUID })
		if i < 0 {
			return nil, fmt.Errorf("%s: %w", d.Name, inAnotherWay(g.Name))
		}
		if err := same(d, createOf(tree[i])); err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name, err)
		}
		l.tables[d.UUID] = createOf(tree[i]).Table
		if v := g.LV(tree[i].LV); v.Visible() && !hidden(d.UUID, d.Name) {
			l.active[v.ID] = true
		}
	}
	if len(l.tables) == 0 {
		return nil, nil
	}
	return l, nil
}

// createOf is the request for a device.
func createOf(d lvm.Device) ctl.Create {
	var text strings.Builder
	for _, line := range d.Table {
		fmt.Fprintln(&text, line)
	}
	return ctl.Create{Name: d.Name, UUID: d.UUID, Table: text.String(), ReadOnly: d.ReadOnly}
}

// Active reports whether a volume has a device.
func (l *Live) Active(v *lvm.LV) bool { return l.active[v.ID] }

// Examined reports whether a group is still as it was when it was examined.
func (l *Live) Examined(g *lvm.Assembled) bool {
	return g.ID == l.before.ID && g.Seqno == l.before.Seqno
}

// Open creates a device over each disk of the group, and returns their names by those of
// the disks. Close removes them.
func (l *Live) Open() (devices map[string]string, err error) {
	devices = map[string]string{}
	for pv, d := range l.before.Disks {
		r := ctl.Create{Name: lvm.DeviceName(l.before.Name, pv, changeLayer), UUID: lvm.DeviceUUID(l.before.ID, l.before.PV(pv).ID, changeLayer),
			Table: fmt.Sprintf("0 %d linear %s 0\n", d.Device.Limits().Size, dm.QuoteWord(d.Name))}
		if err := l.own(r); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		devices[d.Name] = r.Name
		l.disks = append(l.disks, r.Name)
	}
	return devices, nil
}

// own creates a device that is there already only if a command was killed.
func (l *Live) own(r ctl.Create) error {
	_, err := l.s.Create(l.ctx, r)
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	if removed := l.s.Remove(l.ctx, ctl.Remove{Ref: ctl.Ref{Name: r.Name}}); removed != nil {
		return fmt.Errorf("another command is changing the group: %w", removed)
	}
	_, err = l.s.Create(l.ctx, r)
	return err
}

// Close removes the devices of Open, and returns when they are gone: the daemon notices
// later than a client that it has closed a device.
func (l *Live) Close() error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.ctx))
	defer cancel()
	events, err := l.s.Events(ctx)
	if err != nil {
		return err
	}
	for _, name := range l.disks {
		err = errors.Join(err, l.s.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: name}, Deferred: true}))
	}
	next, stop := iter.Pull2(events)
	defer stop()
	for err == nil && l.anyLeft(ctx) {
		_, failed, more := next()
		if err = failed; !more {
			return errors.New("the daemon has ended")
		}
	}
	return err
}

// anyLeft reports whether a device of Open is there.
func (l *Live) anyLeft(ctx context.Context) bool {
	return slices.ContainsFunc(l.disks, func(name string) bool {
		_, err := l.s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: name}})
		return err == nil
	})
}

// Tell sends an active pool the messages of the group's text.
func (l *Live) Tell(g *lvm.Assembled, pool *lvm.LV) error {
	a := &activation{s: l.s, g: g}
	d, err := l.s.Device(l.ctx, ctl.Query{Ref: ctl.Ref{UUID: lvm.DeviceUUID(g.ID, pool.ID, "tpool")}})
	if err != nil {
		return err
	}
	k := pool.Segments[0].Kind.(*lvm.ThinPool)
	st, err := a.poolStatus(l.ctx, d.Name)
	if err != nil || st.TransactionID == k.Transaction {
		return err
	}
	if st.TransactionID+1 != k.Transaction {
		return differentTimes(st.TransactionID, k.Transaction)
	}
	still, err := l.suspendOrigins(g, k)
	if err == nil {
		err = a.send(l.ctx, d.Name, k, st.TransactionID)
	}
	return errors.Join(err, l.resume(still))
}

// suspendOrigins suspends the active volumes that messages make snapshots of.
func (l *Live) suspendOrigins(g *lvm.Assembled, k *lvm.ThinPool) (still []string, err error) {
	for _, m := range k.Messages {
		v := g.LV(m.Create)
		if v == nil {
			continue
		}
		origin := g.LV(v.Segments[0].Kind.(*lvm.Thin).Origin)
		if origin == nil || !l.active[origin.ID] {
			continue
		}
		uuid := lvm.DeviceUUID(g.ID, origin.ID, "")
		if _, err := l.s.Suspend(l.ctx, ctl.Suspend{Ref: ctl.Ref{UUID: uuid}}); err != nil {
			return still, err
		}
		still = append(still, uuid)
	}
	return still, nil
}

// resume resumes devices that were suspended in this order: those below first, without
// which a new table of one above cannot take its place.
func (l *Live) resume(uuids []string) (err error) {
	ctx := context.WithoutCancel(l.ctx)
	for _, uuid := range slices.Backward(uuids) {
		_, failed := l.s.Resume(ctx, ctl.Suspend{Ref: ctl.Ref{UUID: uuid}})
		err = errors.Join(err, failed)
	}
	return err
}

// Follow makes the devices those of the changed group, while they are in use. Volumes
// that are new become active, too. If it fails, devices keep their old tables as far
// as possible.
func (l *Live) Follow(after *lvm.Assembled) error {
	tree, err := l.tree(after)
	if err != nil {
		return err
	}
	for _, d := range tree {
		if err := l.rename(d); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	still, err := l.suspend(tree)
	for _, d := range tree {
		if err == nil {
			if err = l.follow(d, &still); err != nil {
				err = fmt.Errorf("%s: %w", d.Name, err)
			}
		}
	}
	return errors.Join(err, l.resume(still))
}

// tree returns the devices of the volumes that were active, and of the new ones.
func (l *Live) tree(after *lvm.Assembled) ([]lvm.Device, error) {
	only := []string{}
	for _, v := range after.LVs {
		isNew := !slices.ContainsFunc(l.before.LVs, func(o *lvm.LV) bool { return o.ID == v.ID })
		if v.Visible() && (l.active[v.ID] || isNew && !v.SkipsActivation()) {
			only = append(only, v.Name)
		}
	}
	tree, _, err := after.Tree(lvm.TreeOptions{Only: only, Skip: true})
	return tree, err
}

// rename gives a device that is there its new name. Its users are told of numbers only.
func (l *Live) rename(d lvm.Device) error {
	if _, there := l.tables[d.UUID]; !there {
		return nil
	}
	now, err := l.s.Device(l.ctx, ctl.Query{Ref: ctl.Ref{UUID: d.UUID}})
	if err == nil && now.Name != d.Name {
		l.names["/dev/mapper/"+now.Name] = "/dev/mapper/" + d.Name
		_, err = l.s.Rename(l.ctx, ctl.Rename{Ref: ctl.Ref{UUID: d.UUID}, NewName: d.Name})
	}
	return err
}

// renamed is a table with the new names of devices.
func (l *Live) renamed(table string) string {
	words := strings.Split(table, " ")
	for i, w := range words {
		words[i] = cmp.Or(l.names[w], w)
	}
	return strings.Join(words, " ")
}

// suspend suspends the devices whose tables change, users before what they use.
func (l *Live) suspend(tree []lvm.Device) (still []string, err error) {
	for _, d := range slices.Backward(tree) {
		table, there := l.tables[d.UUID]
		if !there || l.renamed(table) == createOf(d).Table {
			continue
		}
		if _, err := l.s.Suspend(l.ctx, ctl.Suspend{Ref: ctl.Ref{UUID: d.UUID}}); err != nil {
			return still, fmt.Errorf("%s: %w", d.Name, err)
		}
		still = append(still, d.UUID)
	}
	return still, nil
}

// follow creates a device, or loads its new table. A layer goes on at once, because
// those above need its size; what users see waits until all of the group is there.
func (l *Live) follow(d lvm.Device, still *[]string) error {
	r := createOf(d)
	if _, there := l.tables[d.UUID]; !there {
		_, err := l.s.Create(l.ctx, r)
		return err
	}
	if !slices.Contains(*still, d.UUID) {
		return nil
	}
	if _, err := l.s.Load(l.ctx, ctl.Load{Ref: ctl.Ref{UUID: d.UUID}, Table: r.Table, ReadOnly: r.ReadOnly}); err != nil {
		return err
	}
	if !hidden(d.UUID, d.Name) {
		return nil
	}
	*still = slices.DeleteFunc(*still, func(uuid string) bool { return uuid == d.UUID })
	return l.resume([]string{d.UUID})
}
