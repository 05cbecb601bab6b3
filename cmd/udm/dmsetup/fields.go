package dmsetup

import (
	"fmt"
	"strconv"
	"strings"

	"udm/ctl"
)

// row is the data of one line of a report.
type row struct {
	t     *tool
	dev   *ctl.Device
	node  *node // in the tree, if a field needs it
	split splitName
}

// splitName is an LVM device name split into its parts.
type splitName struct{ subsystem, vg, lv, layer string }

// field is a column of a report.
type field struct {
	section section
	id      string
	heading string
	width   int
	number  bool
	help    string
	value   func(row) string
}

// section groups the fields in the help and determines the data that they need.
type section string

const (
	names     section = "Mapped Device Name"
	infos     section = "Mapped Device Information"
	relations section = "Mapped Device Relationship Information"
	parts     section = "Mapped Device Name Components"
	special   section = "Special"
)

// prefix may precede the ids of a section, and the word "all".
func (s section) prefix() string {
	switch s {
	case names:
		return "name_"
	case infos:
		return "info_"
	case relations:
		return "deps_"
	case parts:
		return "splitname_"
	}
	return ""
}

// fields lists the columns.
func fields() []field {
	num := func(f func(row) int) func(row) string {
		return func(r row) string { return strconv.Itoa(f(r)) }
	}
	return []field{
		{section: names, id: "name", heading: "Name", width: 16, help: "Name.", value: func(r row) string { return r.unmangled(r.dev.Name) }},
		{section: names, id: "mangled_name", heading: "MangledName", width: 16, help: "Name, mangled.", value: func(r row) string { return r.mangled(r.dev.Name, "name") }},
		{section: names, id: "unmangled_name", heading: "UnmangledName", width: 16, help: "Name, unmangled.", value: func(r row) string { return decode(r.dev.Name) }},
		{section: names, id: "uuid", heading: "UUID", width: 32, help: "Unique identifier, if any.", value: func(r row) string { return r.unmangled(r.dev.UUID) }},
		{section: names, id: "mangled_uuid", heading: "MangledUUID", width: 32, help: "Unique identifier, mangled.", value: func(r row) string { return r.mangled(r.dev.UUID, "UUID") }},
		{section: names, id: "unmangled_uuid", heading: "UnmangledUUID", width: 32, help: "Unique identifier, unmangled.", value: func(r row) string { return decode(r.dev.UUID) }},
		{section: names, id: "read_ahead", heading: "RAhead", width: 6, number: true, help: "Read ahead, in sectors.", value: num(func(r row) int { return r.readAhead() })},

		{section: infos, id: "blkdevname", heading: "BlkDevName", width: 16, help: "Name of the block device.", value: func(r row) string { return blockName(r.dev) }},
		{section: infos, id: "attr", heading: "Stat", width: 4, help: "(L)ive, (I)nactive, (s)uspended, (r)ead-only, read-(w)rite.", value: row.attr},
		{section: infos, id: "tables_loaded", heading: "Tables", width: 6, help: "Table slots that are filled.", value: func(r row) string { return tables(r.dev, "None", "Live", "Inactive", "Both") }},
		{section: infos, id: "suspended", heading: "Suspended", width: 9, help: "Whether it is suspended.", value: func(r row) string { return choose(r.dev.Suspended, "Suspended", "Active") }},
		{section: infos, id: "readonly", heading: "Read-only", width: 9, help: "Whether it is read-only.", value: func(r row) string { return choose(r.dev.ReadOnly, "Read-only", "Writeable") }},
		{section: infos, id: "devno", heading: "DevNo", width: 5, help: "Major and minor number.", value: func(r row) string { return r.dev.Number.String() }},
		{section: infos, id: "major", heading: "Maj", width: 3, number: true, help: "Major number.", value: num(func(r row) int { return int(r.dev.Major) })},
		{section: infos, id: "minor", heading: "Min", width: 3, number: true, help: "Minor number.", value: num(func(r row) int { return int(r.dev.Minor) })},
		{section: infos, id: "open", heading: "Open", width: 4, number: true, help: "How often it is open.", value: num(func(r row) int { return r.dev.Opens })},
		{section: infos, id: "segments", heading: "Targ", width: 4, number: true, help: "Targets in the live table.", value: num(func(r row) int { return r.dev.Targets })},
		{section: infos, id: "events", heading: "Event", width: 6, number: true, help: "Number of the last event.", value: num(func(r row) int { return int(r.dev.Event) })},

		{section: relations, id: "device_count", heading: "#Devs", width: 5, number: true, help: "How many devices it uses.", value: num(func(r row) int { return len(r.dev.Deps) })},
		{section: relations, id: "devs_used", heading: "DevNamesUsed", width: 16, help: "Mapped devices that it uses.", value: func(r row) string { return r.node.names(false, r.t.mangling) }},
		{section: relations, id: "devnos_used", heading: "DevNosUsed", width: 16, help: "Numbers of the devices that it uses.", value: func(r row) string {
			return r.deps(func(d ctl.Dep) string { return d.Number.String() })
		}},
		{section: relations, id: "blkdevs_used", heading: "BlkDevNamesUsed", width: 16, help: "Block devices that it uses.", value: func(r row) string { return r.deps(func(d ctl.Dep) string { return d.Name }) }},
		{section: relations, id: "device_ref_count", heading: "#Refs", width: 5, number: true, help: "How many mapped devices use it.", value: num(func(r row) int { return r.t.tree.count(r.node, true) })},
		{section: relations, id: "names_using_dev", heading: "RefNames", width: 8, help: "Mapped devices that use it.", value: func(r row) string { return r.node.names(true, r.t.mangling) }},
		{section: relations, id: "devnos_using_dev", heading: "RefDevNos", width: 9, help: "Numbers of the mapped devices that use it.", value: row.users},

		{section: parts, id: "subsystem", heading: "Subsys", width: 6, help: "What in userspace it belongs to.", value: func(r row) string { return r.split.subsystem }},
		{section: parts, id: "vg_name", heading: "VG", width: 4, help: "Volume group of LVM.", value: func(r row) string { return r.split.vg }},
		{section: parts, id: "lv_name", heading: "LV", width: 4, help: "Logical volume of LVM.", value: func(r row) string { return r.split.lv }},
		{section: parts, id: "lv_layer", heading: "LVLayer", width: 7, help: "Layer of the logical volume.", value: func(r row) string { return r.split.layer }},

		{section: special, id: "selected", heading: "Selected", width: 8, number: true, help: "1 if the selection fits, else 0."},
		{section: special, id: "help", heading: "Help", width: 8, help: "Show this help."},
		{section: special, id: "?", heading: "Help", width: 8, help: "Show this help."},
	}
}

func (r row) unmangled(s string) string { return r.t.mangling.unmangle(s) }

// mangled is the mangled form of a name that is in the current mode.
func (r row) mangled(s, kind string) string {
	m := r.t.mangling
	if m == none {
		m = auto
	}
	if out, err := m.mangle(r.unmangled(s), kind); err == nil {
		return out
	}
	return s
}

func (r row) readAhead() int {
	if r.dev.Disk {
		return readAhead
	}
	return 0
}

func (r row) attr() string {
	d := r.dev
	return choose(d.Live, "L", "-") + choose(d.Inactive, "I", "-") + choose(d.Suspended, "s", "-") + choose(d.ReadOnly, "r", "w")
}

func (r row) deps(name func(ctl.Dep) string) string {
	var s []string
	for _, d := range r.dev.Deps {
		s = append(s, name(d))
	}
	return strings.Join(s, ",")
}

func (r row) users() string {
	var s []string
	for _, n := range r.node.usedBy {
		if n.dev != nil {
			s = append(s, n.number.String())
		}
	}
	return strings.Join(s, ",")
}

// missing says why a field has no value for a device, or "".
func (f *field) missing(r row) string {
	if f.id == "blkdevname" && blockName(r.dev) == "" {
		return fmt.Sprintf("Could not resolve block device name for %s.", r.dev.Number)
	}
	return ""
}

// splitLVM splits an LVM device name at dashes; two dashes are one dash within a
// part.
func splitLVM(subsystem, name string) splitName {
	s := splitName{subsystem: subsystem}
	if subsystem != "LVM" {
		return s
	}
	for i, part := range []*string{&s.vg, &s.lv, &s.layer} {
		cut := len(name)
		if i < 2 {
			cut = dash(name)
		}
		*part = strings.ReplaceAll(name[:cut], "--", "-")
		name = strings.TrimPrefix(name[cut:], "-")
	}
	return s
}

// dash returns the index of the first single dash.
func dash(s string) int {
	for i := 0; i < len(s); i++ {
		if s[i] == '-' {
			if i+1 == len(s) || s[i+1] != '-' {
				return i
			}
			i++
		}
	}
	return len(s)
}
