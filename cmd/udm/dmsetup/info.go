package dmsetup

import (
	"fmt"

	"udm/ctl"
)

func (t *tool) info(c call) bool {
	q := ctl.Query{Inactive: t.has("inactive")}
	if t.report != nil {
		q.With = t.report.needs()
	}
	if t.unnamed(c) {
		return t.all(c, q, (*tool).info)
	}
	dev, ok := t.query(c, q, "info")
	return ok && t.show(*dev)
}

// show prints a device, or adds it to the report.
func (t *tool) show(dev ctl.Device) bool {
	if t.report == nil {
		t.showLong(&dev)
		return true
	}
	return t.reportDevice(&dev)
}

// readAhead is Linux's default in sectors. A device has no read-ahead before it has a
// disk.
const readAhead = 256

func (t *tool) showLong(d *ctl.Device) {
	t.printf("Name:              %s\n", t.mangling.unmangle(d.Name))
	t.printf("State:             %s\n", state(d))
	if d.Disk {
		t.printf("Read Ahead:        %d\n", readAhead)
	}
	t.printf("Tables present:    %s\n", tables(d, "None", "LIVE", "INACTIVE", "LIVE & INACTIVE"))
	t.printf("Open count:        %d\n", d.Opens)
	t.printf("Event number:      %d\n", d.Event)
	t.printf("Major, minor:      %d, %d\n", d.Major, d.Minor)
	t.printf("Number of targets: %d\n", d.Targets)
	if d.UUID != "" {
		t.printf("UUID: %s\n", t.mangling.unmangle(d.UUID))
	}
	t.printf("\n")
}

func state(d *ctl.Device) string {
	s := "ACTIVE"
	if d.Suspended {
		s = "SUSPENDED"
	}
	if d.ReadOnly {
		s += " (READ-ONLY)"
	}
	if d.DeferredRemove {
		s += " (DEFERRED REMOVE)"
	}
	return s
}

// tables returns the word for the filled table slots.
func tables(d *ctl.Device, neither, live, inactive, both string) string {
	switch {
	case d.Live && d.Inactive:
		return both
	case d.Live:
		return live
	case d.Inactive:
		return inactive
	}
	return neither
}

// blockName is Linux's name for a mapped device, "" before it has a disk.
func blockName(d *ctl.Device) string {
	if !d.Disk {
		return ""
	}
	return fmt.Sprintf("dm-%d", d.Minor)
}

func (t *tool) deps(c call) bool {
	q := ctl.Query{With: []ctl.With{ctl.WithDeps}, Inactive: t.has("inactive")}
	if t.unnamed(c) {
		return t.all(c, q, (*tool).deps)
	}
	dev, ok := t.query(c, q, "deps")
	if !ok {
		return false
	}
	if t.has("verbose") {
		t.showLong(dev)
	}
	if c.multiple && !t.has("verbose") {
		t.printf("%s: ", t.mangling.unmangle(dev.Name))
	}
	t.printf("%d dependencies\t:", len(dev.Deps))
	for _, dep := range dev.Deps {
		t.printf(" (%s)", t.depName(dep))
	}
	t.printf("\n")
	if c.multiple && t.has("verbose") {
		t.printf("\n")
	}
	return true
}

// depName is a dependency in the form that -o asks for.
func (t *tool) depName(d ctl.Dep) string {
	switch t.displayNames() {
	case byBlockName:
		return d.Name
	case byMapName:
		return t.mapName(d)
	}
	return fmt.Sprintf("%d, %d", d.Major, d.Minor)
}

// mapName is the name of a mapped device, or Linux's name for another device.
func (t *tool) mapName(d ctl.Dep) string {
	if d.Map != "" {
		return t.mangling.unmangle(d.Map)
	}
	return d.Name
}

// naming is how ls and deps name devices.
type naming int

const (
	byNumber naming = iota
	byBlockName
	byMapName
)

func (t *tool) ls(c call) bool {
	switch {
	case t.value["target"] != "" || t.value["exec"] != "":
		return t.all(c, ctl.Query{With: []ctl.With{ctl.WithStatus}, Inactive: t.has("inactive")}, (*tool).status)
	case t.has("tree"):
		return t.showTree()
	}
	return t.all(c, ctl.Query{}, (*tool).listOne)
}

func (t *tool) listOne(c call) bool {
	name := t.mangling.unmangle(c.dev.Name)
	as := c.dev.Number.String()
	if block := blockName(c.dev); block != "" {
		switch t.displayNames() {
		case byBlockName:
			as = block
		case byMapName:
			as = name
		}
	}
	t.printf("%s\t(%s)\n", name, as)
	return true
}

func (t *tool) mangle(c call) bool {
	if t.unnamed(c) {
		return t.all(c, ctl.Query{}, (*tool).mangle)
	}
	dev, ok := t.query(c, ctl.Query{}, "status")
	if !ok {
		return false
	}
	target := auto
	if v, ok := t.value["manglename"]; ok {
		target, _ = parseMangling(v)
	}
	name, uuid, err := target.correct(dev.Name, dev.UUID)
	switch {
	case err != nil:
		return t.errorf("%v", err)
	case uuid != dev.UUID:
		t.errorf("%s: %s: UUID in incorrect form. ", dev.Name, dev.UUID)
		return t.errorf("Unable to change device UUID. The device must be deactivated first.")
	case name != dev.Name:
		t.printf("%s: renaming to %s\n", dev.Name, name)
		_, err := t.client.Rename(t.ctx, ctl.Rename{Ref: ctl.Ref{Name: dev.Name}, NewName: name})
		return err == nil || t.fail("rename", ctl.Ref{Name: dev.Name}, err)
	case uuid == "":
		t.printf("%s: [no UUID]: name already in correct form\n", name)
	default:
		t.printf("%s: %s: name and UUID already in correct form\n", name, uuid)
	}
	return true
}

// correct returns a stored name and uuid in the form of this mode.
func (m mangling) correct(name, uuid string) (string, string, error) {
	if m == none {
		return decode(name), decode(uuid), nil
	}
	n, err := m.mangle(name, "name")
	if err != nil {
		return "", "", err
	}
	u, err := m.mangle(uuid, "UUID")
	return n, u, err
}
