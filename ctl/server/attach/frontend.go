package attach

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"udm/ctl"
	"udm/ctl/server/frontend"
)

// files is the front end of the mounted directories.
type files struct {
	*Kernel
	dir string
}

// Files returns the front end that restores saved mounts, and also shows the devices
// in dir unless that is "".
func (k *Kernel) Files(dir string) frontend.Server { return files{k, dir} }

func (files) Name() string { return "files" }

// Start implements [frontend.Server]. It fails only for the given directory; a saved
// mount that cannot be restored is logged.
func (f files) Start(func(error)) error {
	f.lock()
	defer f.op.Unlock()
	f.begin()
	for dir, m := range f.mounts {
		if err := f.show(dir, m.saved); err != nil {
			f.log.Error("cannot restore a mount", "dir", dir, "reason", err)
		}
	}
	if f.dir == "" {
		return nil
	}
	if err := f.show(f.dir, false); err != nil {
		return errors.Join(fmt.Errorf("--mount: %w", err), f.endMounts(atOnce()))
	}
	return nil
}

// Status implements [frontend.Server].
func (f files) Status() ctl.FrontEnd {
	out := f.status()
	if len(out.Addresses) > 0 {
		out.Exports = len(f.exports.ByName().List()) // which may wait, for what needs the lock
	}
	return out
}

func (f files) status() ctl.FrontEnd {
	f.lock()
	defer f.op.Unlock()
	out := ctl.FrontEnd{Name: f.Name()}
	for _, dir := range slices.Sorted(maps.Keys(f.mounts)) {
		m := f.mounts[dir]
		if m.files == nil || !m.files.Mounted() {
			continue
		}
		out.Addresses = append(out.Addresses, dir)
		for _, c := range m.files.Clients() {
			out.Clients = append(out.Clients, ctl.FrontEndClient{Address: dir, Device: c.Export, ReadOnly: c.ReadOnly})
		}
	}
	return out
}

// Drain implements [frontend.Server]. It does not wait until programs close their files,
// which may be as long as they run: the files are kept, or disconnected.
func (f files) Drain(ctx context.Context) error {
	f.op.Lock()
	defer f.op.Unlock()
	return f.endMounts(ctx)
}

// Close implements [frontend.Server].
func (f files) Close() error { return f.Drain(atOnce()) }

// atOnce is a context for what must not wait.
func atOnce() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// devices is the front end of the attached devices.
type devices struct{ *Kernel }

// Devices returns the front end that restores saved attachments.
func (k *Kernel) Devices() frontend.Server { return devices{k} }

func (devices) Name() string { return "attachments" }

// Start implements [frontend.Server]. After Take it leaves devices of ublk to a later Retry: the
// driver may take seconds to give them to this process, which must not hold up the others.
func (d devices) Start(func(error)) error {
	d.lock()
	defer d.op.Unlock()
	d.begin()
	if !d.taken {
		d.bringBack()
	}
	return nil
}

// Status implements [frontend.Server].
func (d devices) Status() ctl.FrontEnd {
	out := ctl.FrontEnd{Name: d.Name()}
	for _, a := range d.Attachments() {
		out.Exports++
		out.Addresses = append(out.Addresses, a.Path)
		out.Clients = append(out.Clients, ctl.FrontEndClient{Address: a.Path, Device: a.Name})
	}
	return out
}

// Drain implements [frontend.Server]. Like for files, it waits for nobody.
func (d devices) Drain(ctx context.Context) error {
	d.op.Lock()
	defer d.op.Unlock()
	d.over = true
	return d.detachAll(ctx)
}

// Close implements [frontend.Server].
func (d devices) Close() error { return d.Drain(atOnce()) }

// lock starts a command.
func (k *Kernel) lock() {
	k.op.Lock()
	k.readSaved()
}
