package multipath

import (
	"strings"
	"syscall"

	"udm/dm"
)

var errSuspended = dm.Errorf(syscall.EBUSY, "the device is suspended; resume it first")

func (m *multipath) Message(args []string) (string, error) {
	if m.isStopped() {
		return "", errSuspended
	}
	verb := strings.ToLower(args[0])
	switch {
	case len(args) == 1 && verb == "queue_if_no_path":
		m.setQueueing(true)
		return "", nil
	case len(args) == 1 && verb == "fail_if_no_path":
		m.setQueueing(false)
		return "", nil
	case len(args) != 2:
		return "", invalid("Invalid multipath message arguments. Expected 2 arguments, got %d.", len(args))
	}
	return "", m.change(verb, args[1])
}

func (m *multipath) isStopped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopped
}

// change carries out a message about a group or a path.
func (m *multipath) change(verb, what string) error {
	switch verb {
	case "disable_group":
		return m.withGroup(what, func(g *group) { g.bypassed = true })
	case "enable_group":
		return m.withGroup(what, func(g *group) { g.bypassed = false })
	case "switch_group":
		return m.withGroup(what, func(g *group) {
			for _, o := range m.groups {
				o.bypassed = false
			}
			m.next = g
		})
	case "fail_path":
		return m.withPaths(what, "multipath: a message has failed a path", func(p *path) bool {
			p.held = true
			return m.failLocked(p)
		})
	case "reinstate_path":
		return m.withPaths(what, "multipath: a message has reinstated a path", m.reinstateLocked)
	}
	return invalid("Unrecognised multipath message received: %s", verb)
}

// withGroup changes a group by its number. The next bio chooses a group anew.
func (m *multipath) withGroup(number string, change func(*group)) error {
	n, ok := parseWrapping(number)
	if !ok || n == 0 || uint64(n) > uint64(len(m.groups)) {
		return invalid("there is no group %s; groups have the numbers 1 to %d", number, len(m.groups))
	}
	m.mu.Lock()
	change(m.groups[n-1])
	m.current = nil
	m.mu.Unlock()
	m.target.Event()
	return nil
}

// numberOf is the number of a device, which need not be there if it is a path.
func (m *multipath) numberOf(name string) (n dm.Number, err error) {
	m.each(func(p *path) {
		if p.dev.Name() == name {
			n = p.dev.Number
		}
	})
	if n != (dm.Number{}) {
		return n, nil
	}
	return m.target.NumberOf(name)
}

// withPaths changes the paths of a device.
func (m *multipath) withPaths(name, told string, change func(*path) bool) error {
	number, err := m.numberOf(name)
	if err != nil {
		return dm.Because(err, "error getting device "+name)
	}
	var changed []*path
	is := false
	m.mu.Lock()
	m.each(func(p *path) {
		if p.dev.Number == number {
			if is = true; change(p) {
				changed = append(changed, p)
			}
		}
	})
	m.mu.Unlock()
	for _, p := range changed {
		m.tell(p, told)
	}
	if !is {
		return invalid("%s is not a path of this device", name)
	}
	return nil
}
