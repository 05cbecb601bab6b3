package edit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"udm/env"
	"udm/lvm"
	"udm/lvm/text"
)

// Author says who changes a group; the text records it.
type Author struct {
	Host    string
	Time    time.Time
	Command string
}

// Edit is a volume group while it is changed. It is for one goroutine. If a method
// fails, nothing is left to commit.
type Edit struct {
	// Progress, unless nil, is told how many bytes of those that a commit moves are copied.
	Progress func(done, total uint64)

	env   env.Env
	by    Author
	disks map[string]*lvm.Found // by the names in the text
	root  *text.Section         // the text as edited
	group *lvm.Group            // the same, decoded
	err   error                 // of the first method that failed

	fresh     []*lvm.Found // disks to initialise
	dropped   []*lvm.Found // disks that leave the group
	strangers []*lvm.Found // disks that left it only in the text
	moves     []move       // data to copy
	blank     []string     // volumes whose start is to be zeroed
	tell      []string     // pools to send messages to
	pools     Pools        // nil: none is active
}

// New starts the change of a group. Its disks must be open for writing.
func New(e env.Env, a *lvm.Assembled, by Author) (*Edit, error) {
	if err := complete(a); err != nil {
		return nil, err
	}
	return NewWithout(e, a, by)
}

// complete fails if a disk of the group is missing.
func complete(a *lvm.Assembled) error {
	if a.Err != nil {
		return nil // changeable tells
	}
	for _, p := range a.PVs {
		if a.Disks[p.Name] == nil {
			return fmt.Errorf("a disk of the group %s is missing: %s (%v, last seen at %s); give all its disks", a.Name, p.Name, p.ID, p.Device)
		}
	}
	return nil
}

// NewWithout is New for a group with missing disks, of which only these can be removed.
func NewWithout(e env.Env, a *lvm.Assembled, by Author) (*Edit, error) {
	if err := changeable(a); err != nil {
		return nil, err
	}
	ed := &Edit{env: e, by: by, disks: maps.Clone(a.Disks), root: a.Text.Clone(), strangers: a.Strangers}
	return ed, ed.decode()
}

// changeable fails if the group must not be changed.
func changeable(a *lvm.Assembled) error {
	switch {
	case a.Err != nil:
		return fmt.Errorf("the group %s cannot be used: %w", a.Name, a.Err)
	case a.Exported():
		return fmt.Errorf("the group %s is exported; import it first (vgimport)", a.Name)
	case !slices.Contains(a.Status, "RESIZEABLE") || !slices.Contains(a.Status, "WRITE"):
		return fmt.Errorf("the group %s is read-only or has a fixed size (vgchange changes that)", a.Name)
	case a.LockType != "" && a.LockType != "none" || slices.Contains(a.Status, "CLUSTERED"):
		return fmt.Errorf("the group %s is shared by several hosts; only LVM can lock it for a change", a.Name)
	}
	return nil
}

// Pools are the thin pools of a group that are active. Their metadata is not touched.
type Pools interface {
	// Active reports whether a volume is active.
	Active(volume *lvm.LV) bool
	// Tell sends an active pool the messages of the group's text, which was committed.
	Tell(g *lvm.Assembled, pool *lvm.LV) error
}

// UsePools says which pools are active. Volumes with devices keep them: the caller loads
// their new tables after the commit.
func (ed *Edit) UsePools(p Pools) { ed.pools = p }

// inUse reports whether a volume is active.
func (ed *Edit) inUse(l *lvm.LV) bool { return ed.pools != nil && ed.pools.Active(l) }

// Group returns the group as edited.
func (ed *Edit) Group() *lvm.Group { return ed.group }

// Commit makes the change durable. See the package comment for the steps.
func (ed *Edit) Commit() error {
	if ed.err != nil {
		return ed.err
	}
	for _, d := range ed.fresh {
		if err := d.Initialise(ed.env); err != nil {
			return err
		}
	}
	for _, name := range ed.blank {
		if err := ed.zero(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := ed.copyMoves(); err != nil {
		return err
	}
	err := ed.write()
	var some *lvm.Incomplete
	if err != nil && !errors.As(err, &some) {
		return err
	}
	if failed := ed.release(); failed != nil {
		err = &lvm.Incomplete{Err: errors.Join(err, failed)}
	}
	if len(ed.tell) == 0 {
		return err
	}
	if failed := ed.tellPools(); failed != nil {
		return errors.Join(err, fmt.Errorf("the group was changed, and the pool follows when it is activated: %w", failed))
	}
	return ed.write() // also makes up for what the first one failed to write
}

// write commits the text with the next seqno.
func (ed *Edit) write() error {
	ed.order()
	ed.vg().Set("seqno", text.Int(ed.group.Seqno+1))
	ed.root.Set("description", text.String(ed.by.Command))
	ed.root.Set("creation_host", text.String(ed.by.Host))
	ed.root.Set("creation_time", text.Int(ed.by.Time.Unix()))
	if err := ed.decode(); err != nil {
		return err
	}
	return ed.after().Commit(ed.env, ed.root)
}

// order puts parts of volumes behind all volumes, as LVM does. It deactivates them in this
// order, and a part cannot go first.
func (ed *Edit) order() {
	if lvs := ed.vg().Section("logical_volumes"); lvs != nil {
		slices.SortStableFunc(lvs.Entries, func(a, b text.Entry) int { return ed.rank(a.Name) - ed.rank(b.Name) })
	}
}

func (ed *Edit) rank(name string) int {
	if ed.group.LV(name).Visible() {
		return 0
	}
	return 1
}

// After returns the group as edited, on its disks.
func (ed *Edit) After() *lvm.Assembled { return ed.after() }

func (ed *Edit) after() *lvm.Assembled {
	return &lvm.Assembled{Name: ed.group.Name, ID: ed.group.ID, Seqno: ed.group.Seqno, Group: ed.group, Disks: ed.disks}
}

// decode decodes and checks the text as edited.
func (ed *Edit) decode() (err error) {
	ed.group, err = lvm.ParseGroup(ed.root)
	return err
}

// try changes the text.
func (ed *Edit) try(change func() error) error {
	if ed.err == nil {
		ed.err = change()
	}
	if ed.err == nil {
		ed.err = ed.decode()
	}
	return ed.err
}

// vg is the section of the group.
func (ed *Edit) vg() *text.Section { return ed.root.Section(ed.vgName()) }

func (ed *Edit) vgName() string {
	i := slices.IndexFunc(ed.root.Entries, func(e text.Entry) bool { return e.Section != nil })
	return ed.root.Entries[i].Name
}

// section returns a subsection of the group, which is made if there is none.
func (ed *Edit) section(name string) *text.Section {
	s := ed.vg().Section(name)
	if s == nil {
		s = &text.Section{}
		ed.vg().SetSection(name, s)
	}
	return s
}

// volume returns a volume that users see.
func (ed *Edit) volume(name string) (*lvm.LV, error) {
	l := ed.group.LV(name)
	if l == nil || !l.Visible() {
		return nil, fmt.Errorf("the group %s has no volume %q", ed.group.Name, name)
	}
	if slices.Contains(l.Status, "LOCKED") || slices.Contains(l.Status, "PVMOVE") {
		return nil, fmt.Errorf("%s is locked, because parts of it are being moved", name)
	}
	return l, nil
}

// names joins the names of volumes.
func names(ls []*lvm.LV) string {
	var list []string
	for _, l := range ls {
		list = append(list, l.Name)
	}
	return strings.Join(list, ", ")
}
