package dmsetup

import (
	"os/exec"
	"strings"
	"syscall"

	"udm/ctl"
)

// devices lists all devices with the data that a query asks for.
func (t *tool) devices(q ctl.Query) ([]ctl.Device, bool) {
	ds, err := t.client.List(t.ctx, q)
	if err != nil {
		return nil, t.fail("names", ctl.Ref{}, err)
	}
	return ds, true
}

// all runs a command for every device, with a single query.
func (t *tool) all(c call, q ctl.Query, run func(*tool, call) bool) bool {
	ds, ok := t.devices(q)
	if ok && len(ds) == 0 {
		t.printf("No devices found\n")
	}
	for i := range ds {
		if !run(t, call{cmd: c.cmd, args: c.args, dev: &ds[i], multiple: true}) {
			ok = false
		}
	}
	return ok
}

// unnamed reports whether a call is for all devices.
func (t *tool) unnamed(c call) bool {
	return c.dev == nil && len(c.args) == 0 && !t.has("uuid") && !t.has("major")
}

// query returns the device of a call, unless it is known already. A missing device is
// reported as libdm does for word; commands with word "" have their own text.
func (t *tool) query(c call, q ctl.Query, word string) (*ctl.Device, bool) {
	if c.dev != nil {
		return c.dev, true
	}
	r, ok := t.refOf(c)
	if !ok {
		return nil, false
	}
	q.Ref = r
	dev, err := t.client.Device(t.ctx, q)
	switch {
	case is(err, syscall.ENXIO) && (word == "info" || word == "status"):
		return nil, t.errorf("Device does not exist.")
	case err != nil:
		return nil, t.fail(word, r, err)
	}
	return &dev, true
}

// status is the verbs status and table, and ls with a target or a command.
func (t *tool) status(c call) bool {
	word, with := "status", ctl.WithStatus
	if c.cmd.name == "table" {
		word, with = "table", ctl.WithTable
	}
	q := ctl.Query{With: []ctl.With{with}, Inactive: t.has("inactive"), Noflush: t.has("noflush"), Keys: t.has("showkeys")}
	if t.unnamed(c) {
		return t.all(c, q, (*tool).status)
	}
	dev, ok := t.query(c, q, word)
	if !ok {
		return false
	}
	lines := dev.Status
	if with == ctl.WithTable {
		lines = dev.Table
	}
	matched := t.printTargets(c, dev, lines)
	if c.multiple && t.has("verbose") && matched && c.cmd.name != "ls" {
		t.printf("\n")
	}
	if matched && t.value["exec"] != "" {
		return t.exec(dev.Name)
	}
	return true
}

// printTargets prints the lines of a device with the requested target, and reports
// whether there were any. A device without a table has one empty line.
func (t *tool) printTargets(c call, dev *ctl.Device, lines []ctl.Line) (matched bool) {
	if len(lines) == 0 {
		lines = []ctl.Line{{}}
	}
	silent := t.value["exec"] != "" && !t.has("verbose")
	concise := c.cmd.name == "table" && t.has("concise")
	for _, l := range lines {
		if t.has("target") && l.Target != t.value["target"] {
			continue
		}
		switch {
		case silent:
		case c.cmd.name == "ls":
			t.printf("%s\t(%d, %d)\n", t.mangling.unmangle(dev.Name), dev.Major, dev.Minor)
		case concise:
			t.printConcise(dev, l, matched)
		default:
			t.printTarget(c, dev, l, matched)
		}
		matched = true
		if c.cmd.name == "ls" {
			break
		}
	}
	return matched
}

func (t *tool) printTarget(c call, dev *ctl.Device, l ctl.Line, matched bool) {
	if !matched && t.has("verbose") {
		t.showLong(dev)
	}
	if c.multiple && !t.has("verbose") {
		t.printf("%s: ", t.mangling.unmangle(dev.Name))
	}
	if l.Target == "" {
		t.printf("\n")
		return
	}
	l.Params = t.hideKeys(c, l)
	t.printf("%v\n", l)
}

func (t *tool) printConcise(dev *ctl.Device, l ctl.Line, matched bool) {
	if !matched {
		if t.conciseStarted {
			t.printf(";")
		}
		t.conciseStarted = true
		access := "rw"
		if dev.ReadOnly {
			access = "ro"
		}
		t.printf("%s,%s,%d,%s", quote(t.mangling.unmangle(dev.Name)), quote(t.mangling.unmangle(dev.UUID)), dev.Minor, access)
	}
	if l.Target != "" {
		t.printf(",%d %d %s %s", l.Start, l.Length, l.Target, quote(t.hideKeys(call{cmd: find("table")}, l)))
	}
}

// quote escapes the special characters of the concise format.
func quote(s string) string {
	return strings.NewReplacer(`\`, `\\`, ",", `\,`, ";", `\;`).Replace(s)
}

// hideKeys replaces the key in a table by zeroes, like dmsetup, even if it is "-" for
// no key. Names of keys, which start with a colon, are kept.
func (t *tool) hideKeys(c call, l ctl.Line) string {
	if t.has("showkeys") || c.cmd.name != "table" || l.Target != "crypt" {
		return l.Params
	}
	cipher, rest, found := strings.Cut(l.Params, " ")
	key, rest, more := strings.Cut(rest, " ")
	if !found || strings.HasPrefix(key, ":") {
		return l.Params
	}
	out := cipher + " " + strings.Repeat("0", len(key))
	if more {
		out += " " + rest
	}
	return out
}

// exec runs the command of --exec with the path of a device appended.
func (t *tool) exec(name string) bool {
	words := strings.Fields(t.value["exec"])
	if len(words) == 0 {
		return false
	}
	if err := t.out.Flush(); err != nil {
		return false
	}
	cmd := exec.CommandContext(t.ctx, words[0], append(words[1:], "/dev/mapper/"+name)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.In, t.Out, t.Err
	_ = cmd.Run() // its result is ignored, as in dmsetup
	return true
}

func (t *tool) targets(call) bool {
	return t.eachTarget(func(g ctl.Target) bool { return true }) || true
}

func (t *tool) targetVersion(c call) bool {
	if t.eachTarget(func(g ctl.Target) bool { return g.Name == c.arg() }) {
		return true
	}
	return t.fail("target-version", ctl.Ref{Name: c.arg()}, &ctl.Error{Errno: "EINVAL"})
}

// eachTarget prints the requested target types and reports whether there were any.
func (t *tool) eachTarget(wanted func(ctl.Target) bool) (any bool) {
	ts, err := t.client.Targets(t.ctx)
	if err != nil {
		return t.fail("versions", ctl.Ref{}, err)
	}
	for _, g := range ts {
		if wanted(g) {
			any = true
			t.printf("%-16s v%d.%d.%d\n", g.Name, g.Version[0], g.Version[1], g.Version[2])
		}
	}
	return any
}

// Library is the version of libdm that this package matches.
const Library = "1.02.185 (2022-05-18)"

func (t *tool) version(call) bool {
	t.printf("Library version:   %s\n", Library)
	v, err := t.client.Version(t.ctx)
	if err != nil {
		return t.fail("version", ctl.Ref{}, err)
	}
	t.printf("Driver version:    %s\n", v.Driver)
	return true
}
