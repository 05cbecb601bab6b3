package dmsetup

import (
	"errors"
	"strings"

	"udm/ctl"
	"udm/dm"
)

// device is one device to create.
type device struct {
	name, uuid string
	minor      int // negative: any
	readOnly   bool
	table      string
}

func (t *tool) create(c call) bool {
	if t.has("concise") {
		return t.createConcise(c)
	}
	if len(c.args) == 0 {
		return t.errorf("Please provide a name for the new device.")
	}
	d := device{name: c.args[0], uuid: t.value["uuid"], minor: -1, readOnly: t.has("readonly")}
	if t.has("minor") {
		d.minor = atoi(t.value["minor"])
	}
	name, uuid, ok := t.names(d)
	if !ok {
		return false
	}
	if !t.has("notable") {
		file := ""
		if len(c.args) == 2 {
			file = c.args[1]
		}
		if d.table, ok = t.readTable(file); !ok {
			return false
		}
	}
	return t.createDevice(name, uuid, d)
}

// names mangles the name and uuid of a new device. It prints errors.
func (t *tool) names(d device) (name, uuid string, ok bool) {
	if strings.Contains(d.name, "/") {
		return "", "", t.errorf("Name \"%s\" invalid. It contains \"/\".", d.name)
	}
	name, err := t.storedName(d.name)
	if err == nil && d.uuid != "" {
		uuid, err = t.mangling.mangle(d.uuid, "UUID")
	}
	if err != nil {
		return "", "", t.errorf("%v", err)
	}
	return name, uuid, true
}

func (t *tool) createDevice(name, uuid string, d device) bool {
	req := ctl.Create{Name: name, UUID: uuid, Table: d.table, ReadOnly: d.readOnly}
	if d.minor >= 0 {
		minor := uint32(d.minor)
		req.Minor = &minor
	}
	dev, err := t.client.Create(t.ctx, req)
	if err != nil {
		return t.createFailed(req, err)
	}
	return !t.has("verbose") || t.show(dev)
}

// createFailed names the step of a create that failed, and the device as libdm
// knows it then.
// createFailed reports the step of a create that failed, with the device's identity as
// libdm knows it at that step.
func (t *tool) createFailed(req ctl.Create, err error) bool {
	r := ctl.Ref{Name: req.Name, UUID: req.UUID}
	if t.has("major") {
		r.Number = t.number()
	}
	step := "create"
	var e *ctl.Error
	if errors.As(err, &e) && e.Step != "" && e.Step != step {
		step = e.Step
		r = ctl.Ref{Name: req.Name, Number: r.Number}
		if step == "reload" {
			r.Number = e.Number
		}
	}
	return t.fail(step, r, err)
}

func (t *tool) createConcise(c call) bool {
	if t.has("table") || t.has("minor") || t.has("uuid") || t.has("notable") || t.has("inactive") {
		return t.errorf("--concise is incompatible with --[no]table, --minor, --uuid and --inactive.")
	}
	if len(c.args) > 1 {
		return t.errorf("dmsetup create --concise takes at most one argument")
	}
	text := c.arg()
	if len(c.args) == 0 {
		var err error
		if text, err = readAll(t.In); err != nil {
			return t.errorf("Read from stdin aborted: %v", err)
		}
	}
	devices, err := dm.ParseConcise(text)
	for _, d := range devices {
		if !t.createConciseDevice(d) {
			return false
		}
	}
	if err != nil {
		return t.errorf("%s", err)
	}
	return true
}

func (t *tool) createConciseDevice(c dm.Concise) bool {
	d := device{name: c.Name, uuid: c.UUID, minor: c.Minor,
		readOnly: c.ReadOnly || t.has("readonly"), table: formatTable(c.Table)}
	name, uuid, ok := t.names(d)
	return ok && t.createDevice(name, uuid, d)
}

func (t *tool) load(c call) bool {
	if t.has("notable") {
		return t.errorf("--notable only available when creating new device.")
	}
	args := c.args
	name, named := "", false
	if !t.has("uuid") && !t.has("major") {
		if len(args) == 0 {
			return t.errorf("Please specify device.")
		}
		name, named, args = args[0], true, args[1:]
	} else if len(args) > 1 {
		return t.errorf("Too many command line arguments.")
	}
	r, ok := t.ref(name, named)
	if !ok {
		return false
	}
	text, ok := t.readTable(strings.Join(args, ""))
	if !ok {
		return false
	}
	dev, err := t.client.Load(t.ctx, ctl.Load{Ref: r, Table: text, ReadOnly: t.has("readonly")})
	if err != nil {
		return t.fail("reload", r, err)
	}
	return !t.has("verbose") || t.show(dev)
}

func (t *tool) rename(c call) bool {
	name, named := c.args[0], len(c.args) == 2
	to := c.args[len(c.args)-1]
	r, ok := t.ref(name, named)
	if !ok {
		return false
	}
	req := ctl.Rename{Ref: r}
	var err error
	if t.has("setuuid") {
		req.NewUUID, err = t.newUUID(to)
	} else {
		req.NewName, err = t.newName(to)
	}
	if err != nil {
		return t.errorf("%v", err)
	}
	if !named {
		// The kernel looks up only the name.
		return t.fail("rename", r, &ctl.Error{Errno: "ENXIO"})
	}
	if _, err := t.client.Rename(t.ctx, req); err != nil {
		return t.fail("rename", r, err)
	}
	return true
}

func (t *tool) newName(s string) (string, error) {
	switch {
	case strings.Contains(s, "/"):
		return "", complain("Name \"%s\" invalid. It contains \"/\".", s)
	case len(s) > maxName:
		return "", complain("Name \"%s\" too long", s)
	case s == "":
		return "", complain("Non empty new name is required.")
	}
	return t.mangling.mangle(s, "name")
}

func (t *tool) newUUID(s string) (string, error) {
	if len(s) > maxUUID {
		return "", complain("Uuid \"%s\" too long", s)
	}
	return t.mangling.mangle(s, "UUID")
}
