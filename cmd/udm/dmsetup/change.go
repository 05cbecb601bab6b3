package dmsetup

import (
	"strconv"
	"strings"
	"syscall"
	"time"

	"udm/ctl"
)

func (t *tool) suspend(c call) bool {
	return t.simple(c, "suspend", func(r ctl.Ref) (ctl.Device, error) {
		return t.client.Suspend(t.ctx, ctl.Suspend{Ref: r, Noflush: t.has("noflush")})
	})
}

func (t *tool) resume(c call) bool {
	return t.simple(c, "resume", func(r ctl.Ref) (ctl.Device, error) {
		return t.client.Resume(t.ctx, ctl.Suspend{Ref: r, Noflush: t.has("noflush")})
	})
}

func (t *tool) clear(c call) bool {
	return t.simple(c, "clear", func(r ctl.Ref) (ctl.Device, error) { return t.client.Clear(t.ctx, r) })
}

// simple runs a command on one device, and shows the device with -v.
func (t *tool) simple(c call, word string, run func(ctl.Ref) (ctl.Device, error)) bool {
	r, ok := t.refOf(c)
	if !ok {
		return false
	}
	dev, err := run(r)
	if err != nil {
		return t.fail(word, r, err)
	}
	return !t.has("verbose") || t.show(dev)
}

func (t *tool) wait(c call) bool {
	args := c.args
	if !t.has("uuid") && !t.has("major") {
		if len(args) == 0 {
			return t.errorf("No device specified.")
		}
		args = args[1:]
	}
	nr := 0
	if len(args) > 0 {
		nr = atoi(args[len(args)-1])
	}
	if len(args) == len(c.args) {
		c.args = nil // the options name the device
	}
	return t.simple(c, "waitevent", func(r ctl.Ref) (ctl.Device, error) {
		return t.client.Wait(t.ctx, ctl.Wait{Ref: r, Event: uint32(nr)})
	})
}

// Number of retries of remove --retry, and the time between them.
const (
	retries    = 25
	retryDelay = 200 * time.Millisecond
)

func (t *tool) remove(c call) bool {
	if t.has("force") && (len(c.args) > 0 || c.dev != nil) {
		t.wipeTable(c) // if this matters, the removal fails too
	}
	r, ok := t.refOf(c)
	if !ok {
		return false
	}
	for try := 1; ; try++ {
		err := t.client.Remove(t.ctx, ctl.Remove{Ref: r, Deferred: t.has("deferred")})
		if err == nil {
			return true
		}
		t.fail("remove", r, err)
		if !t.has("retry") || !is(err, syscall.EBUSY) || try == retries || !t.pause(retryDelay) {
			return false
		}
	}
}

// pause waits. It returns false if the run is interrupted meanwhile.
func (t *tool) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-t.ctx.Done():
		return false
	}
}

func (t *tool) removeAll(c call) bool {
	if !t.removeClosed() {
		return false
	}
	if !t.has("force") {
		return true
	}
	ds, ok := t.devices(ctl.Query{})
	for i := range ds {
		t.wipeTable(call{cmd: c.cmd, dev: &ds[i]})
	}
	if !ok || !t.removeClosed() {
		return false
	}
	if ds, ok = t.devices(ctl.Query{}); len(ds) > 0 {
		t.errorf("Unable to remove %d device(s).", len(ds))
	}
	return ok
}

func (t *tool) removeClosed() bool {
	err := t.client.RemoveAll(t.ctx, ctl.Remove{Deferred: t.has("deferred")})
	return err == nil || t.fail("remove_all", ctl.Ref{}, err)
}

// wipeTable replaces a device's table by an error target.
func (t *tool) wipeTable(c call) bool {
	if c.dev == nil && c.arg() == "" {
		return t.errorf("No device specified.")
	}
	r, ok := t.refOf(c)
	if !ok {
		return false
	}
	size := t.deviceSize(r)
	table := "0 " + strconv.FormatUint(size, 10) + " error"
	if _, err := t.client.Load(t.ctx, ctl.Load{Ref: r, Table: table, ReadOnly: t.has("readonly")}); err != nil {
		return t.fail("reload", r, err)
	}
	if t.has("force") {
		t.set("noflush", "") // a flush might never return
	}
	if _, err := t.client.Resume(t.ctx, ctl.Suspend{Ref: r, Noflush: t.has("noflush")}); err != nil {
		t.fail("resume", r, err)
		if _, err := t.client.Clear(t.ctx, r); err != nil {
			t.fail("clear", r, err)
		}
		return false
	}
	return true
}

// deviceSize is the sum of the lengths in a device's table.
func (t *tool) deviceSize(r ctl.Ref) (size uint64) {
	dev, err := t.client.Device(t.ctx, ctl.Query{Ref: r, With: []ctl.With{ctl.WithTable}, Inactive: t.has("inactive")})
	if err != nil {
		t.fail("table", r, err)
	}
	for _, l := range dev.Table {
		size += l.Length
	}
	return size
}

func (t *tool) message(c call) bool {
	args := c.args
	named := !t.has("uuid") && !t.has("major")
	r, ok := t.ref(args[0], named)
	if !ok {
		return false
	}
	if named {
		args = args[1:]
	}
	sector, err := strconv.ParseUint(strings.TrimLeft(args[0], " \t"), 10, 64)
	if err != nil {
		return t.errorf("Invalid sector.")
	}
	if len(args) == 1 {
		t.errorf("No message supplied.")
	}
	reply, err := t.client.Message(t.ctx, ctl.Message{Ref: r, Sector: sector, Text: strings.Join(args[1:], " ")})
	if err != nil {
		return t.fail("message", r, err)
	}
	if reply != "" && !strings.HasSuffix(reply, "\n") {
		reply += "\n"
	}
	t.printf("%s", reply)
	return true
}

// The limits of a geometry: cylinders, heads and sectors.
var geometryLimits = [3]uint64{65535, 255, 255}

// setGeometry checks a geometry as the kernel does. No export of udm has a geometry,
// so there is nothing to set.
func (t *tool) setGeometry(c call) bool {
	r, ok := t.ref(c.args[0], true)
	if !ok {
		return false
	}
	var n [4]uint64
	var err error
	for i, s := range c.args[1:] {
		if n[i], err = strconv.ParseUint(s, 10, 64); err != nil || i < 3 && n[i] > geometryLimits[i] {
			return t.fail("setgeometry", r, &ctl.Error{Errno: "EINVAL"})
		}
	}
	dev, err := t.client.Device(t.ctx, ctl.Query{Ref: r})
	switch {
	case err != nil:
		return t.fail("setgeometry", r, err)
	case dev.Live && n[3] > n[0]*n[1]*n[2]:
		return t.fail("setgeometry", r, &ctl.Error{Errno: "EINVAL"})
	}
	return true
}
