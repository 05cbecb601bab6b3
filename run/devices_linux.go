//go:build linux && (amd64 || arm64)

package run

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"udm/blk"
	"udm/ctl"
)

// devices is what is known of the daemon's devices: the last list, until it is stale.
type devices struct {
	service ctl.Service

	mu    sync.Mutex
	list  []ctl.Device // guarded by mu; in ascending order of numbers
	fresh bool         // guarded by mu
	age   uint64       // guarded by mu; how often the list became stale
}

// stale makes the next question read the list again.
func (d *devices) stale() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fresh = false
	d.age++
}

// all returns all devices that have had a table. If the daemon cannot be asked, these are
// the last ones that were known: programs must not think that their disks are gone.
func (d *devices) all() []ctl.Device {
	d.mu.Lock()
	list, fresh, age := d.list, d.fresh, d.age
	d.mu.Unlock()
	if fresh {
		return list
	}
	now, err := d.service.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithDeps, ctl.WithQueue}})
	if err != nil {
		return list
	}
	list = now
	// Before its first table the kernel has no block device for it.
	list = slices.DeleteFunc(list, func(v ctl.Device) bool { return !v.Disk })
	slices.SortFunc(list, func(a, b ctl.Device) int { return int(a.Minor) - int(b.Minor) })
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.age == age {
		d.list, d.fresh = list, true
	}
	return list
}

// number returns a device by its number.
func (d *devices) number(n blk.Number) (ctl.Device, bool) {
	list := d.all()
	i := slices.IndexFunc(list, func(x ctl.Device) bool { return x.Number == ctl.Number(n) })
	if i < 0 {
		return ctl.Device{}, false
	}
	return list[i], true
}

// usedByTable reports whether a table uses a device.
func (d *devices) usedByTable(n blk.Number) bool {
	return slices.ContainsFunc(d.all(), func(x ctl.Device) bool {
		return slices.ContainsFunc(x.Deps, func(dep ctl.Dep) bool { return dep.Number == ctl.Number(n) })
	})
}

// follow makes the list stale with each event of the daemon, and passes the event on.
func (d *devices) follow(ctx context.Context, also func(ctl.Event)) (wait func(), err error) {
	events, err := d.service.Events(ctx)
	if err != nil {
		return nil, err
	}
	var g sync.WaitGroup
	g.Go(func() {
		for e, err := range events {
			d.stale()
			if err == nil {
				also(e)
			}
		}
	})
	return g.Wait, nil
}

// disk is a file that programs see as a block device.
type disk struct {
	Disk
	n    blk.Number
	path string
}

type disks []*disk

func (ds disks) number(n blk.Number) *disk {
	for _, d := range ds {
		if d.n == n {
			return d
		}
	}
	return nil
}

// mappedName is Linux's name of a mapped device.
func mappedName(n blk.Number) string { return fmt.Sprintf("dm-%d", n.Minor) }

func (s *session) mappedFile(n blk.Number) string {
	return s.root + "/" + ctl.NumberedDir + "/" + mappedName(n)
}

// numbers replaces the paths of devices in the parameters of a target by their numbers,
// as the daemon does not see /dev.
func (s *session) numbers(params string) string {
	words := strings.Split(params, " ")
	for i, w := range words {
		if n, ok := s.tree.Lookup(w); ok && strings.HasPrefix(w, "/dev/") && !n.Char {
			words[i] = n.Number.String()
		}
	}
	return strings.Join(words, " ")
}
