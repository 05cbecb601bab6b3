package dm

import (
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/env"
)

// Control is a set of mapped devices, as the kernel's dm-ioctl.c keeps one for the
// whole machine. All methods are safe for concurrent use.
type Control struct {
	env    env.Env
	opener Opener
	log    *slog.Logger // set before the first device is made
	watch  func(Event)  // set before the first device is made; may be nil
	types  map[string]*Type
	reaper env.Queue // runs reap
	reap   *env.Work // removes closed devices that are marked for it

	events  env.Wait
	sharing sync.Mutex
	things  map[any]any // guarded by sharing; see Target.Shared

	users users

	nesting sync.Mutex // held from the check for a cycle until the open that it is about

	mu       sync.Mutex
	byName   map[string]*Device // guarded by mu
	byUUID   map[string]*Device // guarded by mu
	byMinor  map[uint32]*Device // guarded by mu
	lowest   uint32             // guarded by mu; no minor number below it is free
	globalNr uint32             // guarded by mu

	accounting bool // guarded by mu; see Account

	traced atomic.Uint64 // the last number of a piece in traces
}

// NewControl makes an empty set of devices. Their tables may use the given types;
// devices that are not mapped devices are opened by opener, which may be nil.
func NewControl(e env.Env, opener Opener, types ...*Type) *Control {
	c := &Control{
		env: e, opener: opener, log: slog.New(slog.DiscardHandler), types: make(map[string]*Type),
		reaper: e.NewQueue("dm-reaper"), events: e.NewWait(), things: make(map[any]any),
		byName: make(map[string]*Device), byUUID: make(map[string]*Device), byMinor: make(map[uint32]*Device),
	}
	c.reap = env.NewWork(c.removeMarked)
	for _, t := range types {
		c.types[t.Name] = t
	}
	return c
}

// Close removes all devices, each before the devices that it uses. EBUSY: some are
// still open from outside.
func (c *Control) Close() error {
	c.RemoveAll(false)
	c.reaper.Close()
	c.RemoveAll(false) // devices that those of the reaper had open
	if n := len(c.List()); n > 0 {
		return Errorf(syscall.EBUSY, "%d devices are still open", n)
	}
	return nil
}

// Types returns the target types in the order of their names.
func (c *Control) Types() []*Type {
	return slices.SortedFunc(maps.Values(c.types), func(a, b *Type) int { return strings.Compare(a.Name, b.Name) })
}

func (c *Control) typeNamed(name string) (*Type, error) {
	if ty := c.types[name]; ty != nil {
		return ty, nil
	}
	return nil, Errorf(syscall.EINVAL, "%s: unknown target type", name)
}

func (c *Control) shared(key any, mk func() any) any {
	c.sharing.Lock()
	defer c.sharing.Unlock()
	v, ok := c.things[key]
	if !ok {
		v = mk()
		c.things[key] = v
	}
	return v
}

const maxNameLen, maxUUIDLen = 127, 128

// Create makes a device without a table. minor is its minor number; a negative one
// stands for the lowest free number. uuid may be empty. EBUSY: the name or the uuid is
// taken, or no minor number is free. ENXIO: the minor number is taken or exceeds
// 2^20-1. EINVAL: the name is empty, has a slash or more than 127 bytes, or the uuid
// has more than 128 bytes.
func (c *Control) Create(name, uuid string, minor int) (*Device, error) {
	d, err := c.create(name, uuid, minor)
	if err == nil {
		d.tell(Created)
	}
	return d, err
}

func (c *Control) create(name, uuid string, minor int) (*Device, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if len(uuid) > maxUUIDLen {
		return nil, Errorf(syscall.EINVAL, "uuid longer than %d bytes", maxUUIDLen)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName[name] != nil || uuid != "" && c.byUUID[uuid] != nil {
		return nil, Errorf(syscall.EBUSY, "device %s exists", name)
	}
	m, err := c.minorLocked(minor)
	if err != nil {
		return nil, err
	}
	d := newDevice(c, Number{Major: Major, Minor: m})
	d.name, d.uuid = name, uuid
	if c.accounting {
		d.account()
	}
	c.addLocked(d)
	return d, nil
}

func checkName(name string) error {
	if name == "" || len(name) > maxNameLen || strings.Contains(name, "/") {
		return Errorf(syscall.EINVAL, "device name %q is empty, has a slash or is longer than %d bytes", name, maxNameLen)
	}
	return nil
}

const maxMinor = 1<<20 - 1

func (c *Control) minorLocked(minor int) (uint32, error) {
	if minor > maxMinor {
		return 0, Errorf(syscall.ENXIO, "minor number %d is over %d", minor, maxMinor)
	}
	if minor >= 0 {
		if c.byMinor[uint32(minor)] != nil {
			return 0, Errorf(syscall.ENXIO, "minor number %d is in use", minor)
		}
		return uint32(minor), nil
	}
	for ; c.lowest <= maxMinor; c.lowest++ {
		if c.byMinor[c.lowest] == nil {
			return c.lowest, nil
		}
	}
	return 0, Errorf(syscall.EBUSY, "no minor number is free")
}

func (c *Control) addLocked(d *Device) {
	c.byName[d.name] = d
	c.byMinor[d.number.Minor] = d
	if d.uuid != "" {
		c.byUUID[d.uuid] = d
	}
	c.changedLocked()
}

func (c *Control) dropLocked(d *Device) {
	delete(c.byName, d.name)
	delete(c.byMinor, d.number.Minor)
	c.lowest = min(c.lowest, d.number.Minor)
	if d.uuid != "" {
		delete(c.byUUID, d.uuid)
	}
	c.changedLocked()
}

// changedLocked counts a global event.
func (c *Control) changedLocked() { c.globalNr++ }

func newDevice(c *Control, n Number) *Device {
	d := &Device{env: c.env, control: c, number: n}
	d.inFlight.init(2 * max(1, runtime.GOMAXPROCS(0)))
	none := blk.DefaultLimits(0)
	d.limits.Store(&none)
	d.queue = c.env.NewQueue("dm-" + n.String())
	d.send = env.NewWork(d.sendWaiting)
	d.requeue = env.NewWork(d.requeuePieces)
	d.drained, d.events = c.env.NewWait(), c.env.NewWait()
	d.ctl, d.loading = env.NewMutex(c.env), env.NewMutex(c.env)
	return d
}

// Name returns the device with a name. ENXIO: there is none.
func (c *Control) Name(name string) (*Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return found(c.byName[name])
}

// UUID returns the device with a uuid. ENXIO: there is none.
func (c *Control) UUID(uuid string) (*Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return found(c.byUUID[uuid])
}

// Number returns the device with a number. ENXIO: there is none.
func (c *Control) Number(n Number) (*Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.Major != Major {
		return found(nil)
	}
	return found(c.byMinor[n.Minor])
}

func found(d *Device) (*Device, error) {
	if d == nil {
		return nil, Errorf(syscall.ENXIO, "no such device")
	}
	return d, nil
}

// List returns all devices in the order of their names.
func (c *Control) List() []*Device {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.byName), func(a, b *Device) int { return strings.Compare(a.name, b.name) })
}
