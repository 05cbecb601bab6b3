package dmsetup

import (
	"errors"
	"strings"
	"syscall"

	"udm/ctl"
	"udm/dm"
)

// ref returns the device that a command is for: its operand, else -u, else -j and -m.
// It prints errors.
func (t *tool) ref(name string, named bool) (ctl.Ref, bool) {
	switch {
	case named:
		stored, err := t.storedName(name)
		if err != nil {
			return ctl.Ref{}, t.errorf("%v", err)
		}
		return ctl.Ref{Name: stored}, true
	case t.has("uuid"):
		uuid, err := t.mangling.mangle(t.value["uuid"], "UUID")
		if err != nil {
			return ctl.Ref{}, t.errorf("%v", err)
		}
		return ctl.Ref{UUID: uuid}, true
	case t.has("major"):
		return ctl.Ref{Number: t.number()}, true
	}
	return ctl.Ref{}, t.errorf("No device specified.")
}

func (t *tool) number() *ctl.Number {
	return &ctl.Number{Major: uint32(atoi(t.value["major"])), Minor: uint32(atoi(t.value["minor"]))}
}

// storedName is the mangled form of a device's name. A path under /dev/mapper is
// mangled already.
func (t *tool) storedName(name string) (string, error) {
	if rest, ok := strings.CutPrefix(name, "/dev/mapper/"); ok {
		return rest, nil
	}
	if strings.Contains(name, "/") {
		return "", complain("Device %s not found", name)
	}
	if len(name) > maxName {
		return "", complain("Name \"%s\" too long.", name)
	}
	return t.mangling.mangle(name, "name")
}

// refOf is ref for a call: its own device, or its operand.
func (t *tool) refOf(c call) (ctl.Ref, bool) {
	if c.dev != nil {
		return ctl.Ref{Name: c.dev.Name}, true
	}
	return t.ref(c.arg(), len(c.args) > 0)
}

// fail reports a failed command as libdm reports a failed ioctl. -v adds the reason,
// which the kernel would log.
func (t *tool) fail(command string, r ctl.Ref, err error) bool {
	var e *ctl.Error
	if is(err, syscall.EINTR) {
		return false
	}
	if !errors.As(err, &e) {
		return t.errorf("%v", err)
	}
	number := ""
	if r.Number != nil && r.Number.Major > 0 {
		number = "(" + r.Number.String() + ")"
	}
	t.errorf("device-mapper: %s ioctl on %s %s%s failed: %s", command, r.Name, r.UUID, number, ctl.Strerror(err))
	if t.has("verbose") && e.Reason != "" {
		t.errorf("%s", e.Reason)
	}
	return false
}

func is(err error, n syscall.Errno) bool { return err != nil && dm.ErrnoOf(err) == n }
