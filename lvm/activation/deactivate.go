package activation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"udm/ctl"
	"udm/lvm"
	"udm/volume"
)

// group is the devices of a group, among all devices.
type group struct {
	name string
	all  []ctl.Device
	goes map[string]ctl.Device // by name: those to remove
}

// Deactivate removes the devices of a group, or of a volume and what only it needs.
// Snapshots are removed with their origin. If one of the devices is in use, none is
// removed. It returns the names of the removed devices.
func Deactivate(ctx context.Context, s ctl.Service, name, volume string) (removed []string, err error) {
	all, err := s.List(ctx, ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithDeps}})
	if err != nil {
		return nil, err
	}
	g := &group{name, all, map[string]ctl.Device{}}
	if g.choose(volume); len(g.goes) == 0 {
		return nil, fmt.Errorf("%s is not active", strings.TrimSuffix(name+"/"+volume, "/"))
	}
	if err := g.free(); err != nil {
		return nil, err
	}
	for len(g.goes) > 0 {
		d := g.top()
		if err := g.remove(ctx, s, d); err != nil {
			return removed, fmt.Errorf("%s: %w", d.Name, err)
		}
		delete(g.goes, d.Name)
		removed = append(removed, d.Name)
	}
	return removed, nil
}

// has reports whether a device belongs to the group.
func (g *group) has(d ctl.Device) bool {
	parts := lvm.SplitName(d.Name)
	return strings.HasPrefix(d.UUID, uuidPrefix) && len(parts) > 1 && parts[0] == g.name
}

// isClone reports whether a device is a clone of one of the group's disks.
func (g *group) isClone(d ctl.Device) bool {
	parts := lvm.SplitName(d.Name)
	return len(parts) == 3 && parts[0] == g.name && parts[2] == cloneLayer && on(d, lvm.DeviceName(g.name, parts[1], diskLayer))
}

// choose selects the devices to remove.
func (g *group) choose(volume string) {
	for _, d := range g.all {
		switch {
		case volume == "" && (g.has(d) || g.isClone(d)):
			g.goes[d.Name] = d
		case g.has(d) && d.Name == lvm.DeviceName(g.name, volume, "") && !hidden(d.UUID, d.Name):
			g.family(d)
		}
	}
	for grown := len(g.goes) > 0; grown; {
		grown = false
		for _, d := range g.all {
			_, goes := g.goes[d.Name]
			if !goes && (g.isClone(d) || g.has(d) && hidden(d.UUID, d.Name)) && g.unneeded(d) {
				g.goes[d.Name], grown = d, true
			}
		}
	}
}

// family selects a device, and the origin and snapshots that share a layer with it.
func (g *group) family(d ctl.Device) {
	g.goes[d.Name] = d
	for _, dep := range d.Deps {
		if !isSnapshot(d) || !strings.HasSuffix(dep.Map, "-real") {
			continue
		}
		for _, other := range g.all {
			if g.has(other) && isSnapshot(other) && on(other, dep.Map) {
				g.goes[other.Name] = other
			}
		}
		g.merged(dep.Map)
	}
}

// merged selects the error devices that merging snapshots leave behind.
func (g *group) merged(real string) {
	for _, cow := range g.all {
		parts := lvm.SplitName(cow.Name)
		if !g.has(cow) || len(parts) != 3 || parts[2] != "cow" || !g.usedWith(cow.Name, real) {
			continue
		}
		i := slices.IndexFunc(g.all, func(d ctl.Device) bool { return d.Name == lvm.DeviceName(g.name, parts[1], "") })
		if i >= 0 && g.has(g.all[i]) && len(g.all[i].Deps) == 0 {
			g.goes[g.all[i].Name] = g.all[i]
		}
	}
}

// usedWith reports whether a device uses both.
func (g *group) usedWith(a, b string) bool {
	return slices.ContainsFunc(g.all, func(d ctl.Device) bool { return on(d, a) && on(d, b) })
}

func isSnapshot(d ctl.Device) bool {
	return len(d.Table) == 1 && strings.HasPrefix(d.Table[0].Target, "snapshot")
}

// unneeded reports whether a device has users and all of them will be removed.
func (g *group) unneeded(d ctl.Device) bool {
	n := 0
	for _, user := range g.all {
		if on(user, d.Name) {
			if _, goes := g.goes[user.Name]; !goes {
				return false
			}
			n++
		}
	}
	return n > 0
}

// free fails if one of the selected devices is used by others.
func (g *group) free() error {
	for _, name := range slices.Sorted(maps.Keys(g.goes)) {
		d := g.goes[name]
		for _, user := range g.all {
			if _, goes := g.goes[user.Name]; on(user, name) && !goes {
				return fmt.Errorf("%s is in use: %s depends on it", name, user.Name)
			}
		}
		for _, who := range slices.Sorted(maps.Keys(d.Holders)) {
			if who != "tables" && d.Holders[who] > 0 {
				return fmt.Errorf("%s is in use (%s %d); udm status --clients shows who uses it", name, who, d.Holders[who])
			}
		}
	}
	return nil
}

// top returns a selected device that no other selected device uses.
func (g *group) top() ctl.Device {
	names := slices.Sorted(maps.Keys(g.goes))
	i := slices.IndexFunc(names, func(name string) bool {
		return !slices.ContainsFunc(names, func(user string) bool { return on(g.goes[user], name) })
	})
	return g.goes[names[max(i, 0)]]
}

func (g *group) remove(ctx context.Context, s ctl.Service, d ctl.Device) error {
	if g.isClone(d) {
		return s.RemoveObject(ctx, volume.RemoveSpec{Name: d.Name})
	}
	return s.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: d.Name}})
}
