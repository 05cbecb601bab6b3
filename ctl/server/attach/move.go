package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"udm/ctl"
	"udm/ctl/server/exports"
	"udm/ctl/server/frontend"
	"udm/ctl/server/handover"
	"udm/dm"
	"udm/export/nbd"
)

var _, _ frontend.Mover = files{}, devices{}

// mover is the part of a fileServer that hands its mount over. No file: there is no mount
// any more.
type mover interface {
	hand(context.Context) (json.RawMessage, *os.File, error)
}

// movedMount is a mount in a bundle, with a file.
type movedMount struct {
	Dir   string
	Saved bool
	Mount json.RawMessage
}

// Calm implements [frontend.Mover].
func (files) Calm(context.Context, *handover.Bundle) error { return nil }

// Hand implements [frontend.Mover]. Mounts go over as a whole.
func (f files) Hand(ctx context.Context, b *handover.Bundle, _ handover.Group) error {
	f.lock()
	defer f.op.Unlock()
	var list []movedMount
	var open []*os.File
	shown := maps.Clone(f.mounts)
	shown[f.numberedDir()] = &f.numbered
	for _, dir := range slices.Sorted(maps.Keys(shown)) {
		m := shown[dir]
		if m.files == nil {
			continue
		}
		text, device, err := m.files.hand(ctx)
		if err != nil {
			return f.takeBack(list, open, err)
		}
		m.files = nil
		if device != nil {
			list, open = append(list, movedMount{dir, m.saved, text}), append(open, device)
		}
	}
	return b.Put(f.Name(), list, open...)
}

// takeBack serves on what was handed over, when something else was not.
func (f files) takeBack(list []movedMount, open []*os.File, why error) error {
	starts, err := f.adopt(list, open)
	for _, start := range starts {
		start()
	}
	if err != nil {
		return fmt.Errorf("%w; and files are lost: %w", why, err)
	}
	return why
}

// Take implements [frontend.Mover].
func (f files) Take(b *handover.Bundle) error {
	f.lock()
	defer f.op.Unlock()
	var list []movedMount
	open, ok, err := b.Take(f.Name(), &list)
	if !ok || err != nil {
		return err
	}
	starts, err := f.adopt(list, open)
	f.starts = append(f.starts, starts...) // after those of devices, if these were taken first
	return err
}

func (k *Kernel) adopt(list []movedMount, open []*os.File) (starts []func(), err error) {
	if len(list) != len(open) {
		return nil, fmt.Errorf("%d mounts, but %d files were handed over", len(list), len(open))
	}
	for i, m := range list {
		x := k.exports.For(openFiles).ByName()
		if m.Dir == k.numberedDir() {
			x = k.exports.For(openFiles).ByNumber()
		}
		files, start, err := takeFiles(x, m.Mount, open[i], k.lenience(nil))
		if err != nil {
			return starts, fmt.Errorf("%s: %w", m.Dir, err)
		}
		if m.Dir == k.numberedDir() {
			k.numbered.files = files
		} else {
			k.mounts[m.Dir] = &mounted{files, m.Saved}
		}
		starts = append(starts, start)
	}
	return starts, nil
}

// movedDevices is the attached devices in a bundle, with the sockets of the links, and the file
// of the mount below loop devices, if there is one.
type movedDevices struct {
	Attached []uint32        // minors, of those that go on as they are
	Links    []nbd.Moved     // connections to the nbd driver
	Mount    json.RawMessage // below loop devices
}

// Calm implements [frontend.Mover].
func (devices) Calm(context.Context, *handover.Bundle) error { return nil }

// Hand implements [frontend.Mover]. For devices attached by ublk see Leave.
func (d devices) Hand(ctx context.Context, b *handover.Bundle, _ handover.Group) error {
	d.lock()
	defer d.op.Unlock()
	var m movedDevices
	for minor, a := range d.devices {
		if driverOf(a.path) != ctl.DriverUblk && a.back {
			m.Attached = append(m.Attached, minor)
		}
	}
	d.nbd.Settle(ctx)
	links, err := d.nbd.Hand(ctx, nil)
	if err != nil {
		d.nbd.Reopen()
		return err
	}
	m.Links = links
	if err := d.put(ctx, b, m); err != nil {
		err = errors.Join(err, d.takeLinks(links))
		d.begin()
		return err
	}
	return nil
}

// takeLinks takes over connections to the nbd driver; begin serves them.
func (k *Kernel) takeLinks(moved []nbd.Moved) error {
	k.nbd.Reopen()
	for _, m := range moved {
		var minor uint32
		if _, err := fmt.Sscanf(m.Export, "dm-%d", &minor); err != nil {
			return fmt.Errorf("a connection to the nbd driver for %q: %w", m.Export, err)
		}
		l, serve, err := k.takeLink(m, minor)
		if err != nil {
			return err
		}
		k.links[minor] = l
		k.starts = append(k.starts, serve)
	}
	return nil
}

// Leave ends the servers of a group of devices that are attached by ublk. They are left to be
// recovered by another process, as after the end of a daemon.
func (k *Kernel) Leave(g handover.Group) {
	k.lock()
	defer k.op.Unlock()
	left := slices.DeleteFunc(slices.Collect(maps.Keys(k.ublk)), func(minor uint32) bool { return !g.Has(minor) })
	k.leaveUblk(left...)
	for _, minor := range left {
		k.devices[minor] = attachment{path: k.devices[minor].path}
	}
}

// ByUblk reports whether a device is attached by ublk.
func (k *Kernel) ByUblk(minor uint32) bool {
	k.lock()
	defer k.op.Unlock()
	return k.ublk[minor] != nil
}

// Attaches reports whether those who hold devices are block devices of the kernel.
func (k *Kernel) Attaches(who dm.Holder) bool { return who == attachments }

// put hands over links, and the mount below loop devices.
func (d devices) put(ctx context.Context, b *handover.Bundle, m movedDevices) error {
	var open []*os.File
	for _, l := range m.Links {
		open = append(open, l.Socket)
	}
	if d.own.files != nil {
		text, device, err := d.own.files.hand(ctx)
		if err != nil {
			return err
		}
		if device != nil {
			m.Mount, open = text, append(open, device)
		}
		d.own.files = nil
	}
	return b.Put(d.Name(), m, open...)
}

// Take implements [frontend.Mover].
func (d devices) Take(b *handover.Bundle) error {
	d.lock()
	defer d.op.Unlock()
	d.taken = !d.lenient
	var m movedDevices
	open, ok, err := b.Take(d.Name(), &m)
	if !ok || err != nil {
		return err
	}
	d.left = nil // what goes on is attached, and there is nothing else
	if len(open) < len(m.Links) {
		return fmt.Errorf("%d connections to the nbd driver, but %d files were handed over", len(m.Links), len(open))
	}
	for i := range m.Links {
		m.Links[i].Socket, open = open[0], open[1:]
	}
	if err := d.takeLinks(m.Links); err != nil {
		return err
	}
	lost := make(map[string]bool)
	if len(open) > 0 {
		files, start, err := takeFiles(d.exports.For(attachments).ByNumber(), m.Mount, open[0], d.lenience(lost))
		if err != nil {
			return err
		}
		d.own.files = files
		d.starts = append(d.starts, start)
	}
	for _, minor := range m.Attached {
		d.devices[minor] = attachment{d.devices[minor].path, !lost[exports.Numbered(minor)]}
	}
	return nil
}

// begin serves what Take has taken.
func (k *Kernel) begin() {
	for _, start := range k.starts {
		start()
	}
	k.starts = nil
}
