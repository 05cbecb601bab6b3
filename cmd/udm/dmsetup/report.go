package dmsetup

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"udm/ctl"
)

// column is a field in a report.
type column struct {
	field
	width  int
	hidden bool // only a sort key
}

// key is a column to sort by.
type key struct {
	column     int
	descending bool
}

// report is a report being built, like libdm's libdm-report.c.
type report struct {
	columns   []column
	keys      []key
	selection *expr // nil: all rows
	rows      [][]string

	separator                  string
	aligned, headings, rowwise bool
	prefixes, unquoted         bool
	buffered                   bool
	showUnselected             bool // the report has the column selected
}

// startReport sets up the report that the options describe. There is none if only
// help was requested.
func (t *tool) startReport(cmd *command) bool {
	if t.has("sort") && (cmd.name == "status" || cmd.name == "table") {
		return t.errorf("--sort is not yet supported with status and table.")
	}
	r := &report{separator: " ", aligned: true, headings: true, buffered: true}
	r.layout(t.given)
	options := "name,major,minor,attr,open,segments,events,uuid"
	if cmd.name == "splitname" {
		options = "vg_name,lv_name,lv_layer"
	}
	if o, ok := t.value["options"]; ok {
		if more, add := strings.CutPrefix(o, "+"); add {
			o = options + "," + more
		}
		options = o
	}
	if asksHelp(options) {
		t.showFields(false)
		return true
	}
	if !t.addColumns(r, options) || !t.addKeys(r, t.value["sort"]) || !t.addSelection(r) {
		return false
	}
	t.report = r
	return !r.needsTree() || t.loadTree()
}

// layout sets the look of a report. Without headings it is that of old versions.
func (r *report) layout(g given) {
	if g.has("noheadings") {
		r.separator, r.aligned, r.headings = ":", false, false
	}
	r.buffered = !g.has("unbuffered") || g.has("sort")
	r.rowwise, r.unquoted = g.has("rows"), g.has("unquoted")
	if g.has("nameprefixes") {
		r.aligned, r.prefixes = false, true
	}
	if g.has("separator") {
		r.separator, r.aligned = g.value["separator"], false
	}
}

func asksHelp(options string) bool {
	return slices.ContainsFunc(strings.Split(options, ","), func(w string) bool { return w == "help" || w == "?" })
}

// match returns the fields for a word: one, or with "all" those of a section.
func match(word string) (fs []field) {
	canonical := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	w := canonical(word)
	for _, f := range fields() {
		if id := canonical(f.id); id == w || canonical(f.section.prefix())+id == w && f.section != special {
			return []field{f}
		}
	}
	for _, f := range fields() {
		if f.section != special && (w == "all" || w == canonical(f.section.prefix())+"all") {
			fs = append(fs, f)
		}
	}
	return fs
}

// words splits a list at commas; empty words are dropped.
func words(list string) []string {
	var ws []string
	for len(list) > 0 {
		list = strings.TrimLeft(list, ",")
		w, rest, _ := strings.Cut(list, ",")
		ws, list = append(ws, w), rest
	}
	return ws
}

func (t *tool) addColumns(r *report, list string) bool {
	for _, w := range words(list) {
		fs := match(w)
		if len(fs) == 0 {
			t.showFields(false)
			return t.errorf(" \nUnrecognised field: %s", w)
		}
		for _, f := range fs {
			r.columns = append(r.columns, column{field: f, width: f.width})
			r.showUnselected = r.showUnselected || f.id == "selected"
		}
	}
	return true
}

func (t *tool) addKeys(r *report, list string) bool {
	for _, w := range words(list) {
		k := key{descending: strings.HasPrefix(w, "-")}
		id := strings.TrimLeft(w[:min(1, len(w))], "+-") + w[min(1, len(w)):]
		fs := match(id)
		if len(fs) != 1 {
			t.showFields(false)
			return t.errorf(" \ndm_report: Unrecognised field: %s", w)
		}
		k.column = slices.IndexFunc(r.columns, func(c column) bool { return c.id == fs[0].id })
		if k.column < 0 {
			k.column = len(r.columns)
			r.columns = append(r.columns, column{field: fs[0], hidden: true})
		}
		r.keys = append(r.keys, k)
	}
	return true
}

func (t *tool) addSelection(r *report) bool {
	text, ok := t.value["select"]
	if !ok || text == "" {
		return true
	}
	if text == "help" {
		t.showFields(true)
		return true
	}
	e, err := parseSelection(text)
	if err != nil {
		if unknown, ok := err.(*unknownField); ok {
			t.showFields(true)
			t.errorf(" \nUnrecognised selection field: %s", unknown.name)
		} else if bad, ok := err.(*syntaxError); ok && bad.why != "" {
			t.errorf("%s", bad.why)
		}
		return t.errorf("Selection syntax error at '%s'.\nUse 'help' for selection to get more help.", selectionRest(err, text))
	}
	r.selection = e
	return true
}

// fieldsInUse returns the fields of the columns and of the selection.
func (r *report) fieldsInUse() []field {
	var fs []field
	for _, c := range r.columns {
		fs = append(fs, c.field)
	}
	return append(fs, r.selection.fields()...)
}

// needs is the data about devices that the fields need.
func (r *report) needs() []ctl.With {
	for _, f := range r.fieldsInUse() {
		if f.section == relations {
			return []ctl.With{ctl.WithDeps}
		}
	}
	return nil
}

func (r *report) needsTree() bool { return len(r.needs()) > 0 }

func (t *tool) loadTree() bool {
	ds, ok := t.devices(ctl.Query{With: []ctl.With{ctl.WithDeps}})
	t.tree = buildTree(ds)
	return ok
}

// reportDevice adds a device to the report, or runs a command on it, if it is
// selected.
func (t *tool) reportDevice(d *ctl.Device) bool {
	r := row{t: t, dev: d}
	if t.tree != nil {
		if r.node = t.tree.nodes[d.Number]; r.node == nil {
			return t.errorf("Cannot find node %s.", d.Number)
		}
	}
	subsystem, _, found := strings.Cut(decode(d.UUID), "-")
	if !found {
		subsystem = ""
	}
	r.split = splitLVM(subsystem, decode(d.Name))
	if t.selected != nil {
		if !t.report.selection.matches(r) {
			return true
		}
		return t.selected.run(t, call{cmd: t.selected, args: []string{t.mangling.unmangle(d.Name)}, multiple: true})
	}
	return t.addRow(r)
}

func (t *tool) splitName(c call) bool {
	subsystem := "LVM"
	if len(c.args) == 2 {
		subsystem = c.args[1]
	}
	return t.addRow(row{t: t, split: splitLVM(subsystem, c.args[0])})
}

func (t *tool) addRow(r row) bool {
	p := t.report
	selected := p.selection.matches(r)
	var cells []string
	for _, c := range p.columns {
		if c.id == "selected" {
			cells = append(cells, choose(selected, "1", "0"))
			continue
		}
		if r.dev == nil && c.section != parts {
			return false
		}
		if r.dev != nil {
			if why := c.missing(r); why != "" {
				return t.errorf("%s\n_do_report_object: report function failed for field %s", why, c.id)
			}
		}
		cells = append(cells, c.value(r))
	}
	if selected || p.showUnselected {
		p.rows = append(p.rows, cells)
	}
	return true
}

// print writes the report. A report without rows has no headings.
func (r *report) print(w *bufio.Writer) {
	if len(r.rows) == 0 {
		return
	}
	r.sort()
	if r.buffered {
		r.widen()
	}
	if r.rowwise {
		r.printRowwise(w)
		return
	}
	if r.headings {
		r.printLine(w, func(c column) string { return r.pad(c, c.heading, false) })
	}
	for _, cells := range r.rows {
		i := -1
		r.printLine(w, func(c column) string { i++; return r.cell(c, cells[i]) })
	}
}

// printLine writes the text of each column; hidden ones are last.
func (r *report) printLine(w *bufio.Writer, text func(column) string) {
	for i, c := range r.columns {
		if c.hidden {
			break
		}
		if i > 0 {
			w.WriteString(r.separator)
		}
		w.WriteString(text(c))
	}
	w.WriteByte('\n')
}

func (r *report) printRowwise(w *bufio.Writer) {
	for i, c := range r.columns {
		if c.hidden {
			break
		}
		var cells []string
		for _, row := range r.rows {
			cells = append(cells, r.cell(c, row[i]))
		}
		if r.headings {
			w.WriteString(c.heading + r.separator)
		}
		w.WriteString(strings.Join(cells, r.separator) + "\n")
	}
}

// widen fits the width of each column to its content.
func (r *report) widen() {
	for i := range r.columns {
		for _, cells := range r.rows {
			r.columns[i].width = max(r.columns[i].width, len(cells[i]))
		}
	}
}

func (r *report) cell(c column, s string) string {
	s = r.pad(c, s, c.number)
	if !r.prefixes {
		return s
	}
	if !r.unquoted {
		s = "'" + s + "'"
	}
	return "DM_" + strings.ToUpper(c.id) + "=" + s
}

// pad pads s to the width of its column if columns are aligned.
func (r *report) pad(c column, s string, right bool) string {
	switch {
	case !r.aligned || r.rowwise:
		return s
	case right:
		return fmt.Sprintf("%*.*s", c.width, c.width, s)
	}
	return fmt.Sprintf("%-*.*s", c.width, c.width, s)
}

func (r *report) sort() {
	slices.SortStableFunc(r.rows, func(a, b []string) int {
		for _, k := range r.keys {
			n := compare(a[k.column], b[k.column], r.columns[k.column].number)
			if k.descending {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return 0
	})
}

func compare(a, b string, number bool) int {
	if !number {
		return strings.Compare(a, b)
	}
	x, _ := strconv.ParseInt(a, 10, 64) // values are numbers by construction
	y, _ := strconv.ParseInt(b, 10, 64)
	return int(max(-1, min(1, x-y)))
}

// showFields lists the fields on standard error; for selections with their types.
func (t *tool) showFields(types bool) {
	var last section
	for _, f := range fields() {
		if f.section != last {
			title := string(f.section) + " Fields"
			if last != "" {
				t.errorf(" ")
			}
			t.errorf("%s\n%s", title, strings.Repeat("-", len(title)))
			if f.section != special && !types {
				t.errorf("  %-21s - %s", f.section.prefix()+"all", "All fields in this section.")
			}
			last = f.section
		}
		help := f.help
		if types {
			help += choose(f.number, " [number]", " [string]")
		}
		t.errorf("  %-21s - %s", f.id, help)
	}
}
