package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/dm"
	"udm/targets/all"
)

// maker builds things out of several devices: what the commands for people do
// with tables and messages.
type maker struct {
	ctx    context.Context
	client *ctl.Client
	root   string
}

func newMaker(cmd *cobra.Command) (*maker, error) {
	root, err := rootOf(cmd)
	if err != nil {
		return nil, err
	}
	return &maker{cmd.Context(), ctl.NewClient(root), root}, nil
}

func (m *maker) Close() { m.client.Close() }

// undo are the steps that take back what a command has done so far.
type undo []func() error

func (u *undo) add(step func() error) { *u = append(*u, step) }

// after takes everything back, the last first, if there is an error.
func (u undo) after(err error) error {
	if err == nil {
		return nil
	}
	for _, step := range slices.Backward(u) {
		err = errors.Join(err, step())
	}
	return err
}

// device asks about a device by name.
func (m *maker) device(name string) (ctl.Device, error) {
	d, err := m.client.Device(m.ctx, ctl.Query{Ref: ctl.Ref{Name: name},
		With: []ctl.With{ctl.WithTable, ctl.WithStatus, ctl.WithDeps}, Noflush: true})
	return d, found(name, err)
}

// notThere is the error for a device that does not exist.
type notThere string

func (e notThere) Error() string {
	return fmt.Sprintf("there is no device named %q; udm ls lists the devices", string(e))
}
func (e notThere) Unwrap() error { return syscall.ENXIO }

// found is err about the device name, or that there is none.
func found(name string, err error) error {
	if errors.Is(err, syscall.ENXIO) {
		return notThere(name)
	}
	return err
}

// lineOf is the only line of a device's table, which must be an L; what is what
// such a device is called, with its article.
func lineOf[L dm.Line](d ctl.Device, what string) (L, error) {
	l, ok := only(d).(L)
	if !ok {
		return l, fmt.Errorf("%s is not %s; udm status %s shows what it is", d.Name, what, d.Name)
	}
	return l, nil
}

// only is the line of a table that has one; nil: it has more, or nobody
// understands it.
func only(d ctl.Device) dm.Line {
	if len(d.Table) != 1 {
		return nil
	}
	ty := all.Type(d.Table[0].Target)
	if ty == nil {
		return nil
	}
	l, err := ty.Parse(dm.SplitWords(d.Table[0].Params))
	if err != nil {
		return nil
	}
	return l
}

// statusOf is a status, understood; nil: its target says nothing, or nobody
// understands it.
func statusOf(l ctl.Line) dm.StatusLine {
	ty := all.Type(l.Target)
	if ty == nil || ty.ParseStatus == nil {
		return nil
	}
	s, err := ty.ParseStatus(l.Params)
	if err != nil {
		return nil
	}
	return s
}

// table is the text of a table of one line.
func table(sectors uint64, l dm.Line) string { return dm.NewSpec(0, sectors, l).String() }

// replace loads a one-line table of the length of a device, and makes it live.
func (m *maker) replace(d ctl.Device, l dm.Line) error {
	if err := m.load(d, l); err != nil {
		return err
	}
	return m.switchOver(d.Name)
}

// switchOver makes the inactive table of a device live, or drops it when that
// fails.
func (m *maker) switchOver(name string) error {
	if err := m.resume(name); err != nil {
		return errors.Join(err, m.clear(name), m.resume(name))
	}
	return nil
}

func (m *maker) load(d ctl.Device, l dm.Line) error {
	_, err := m.client.Load(m.ctx, ctl.Load{Ref: ctl.Ref{Name: d.Name}, ReadOnly: d.ReadOnly, Table: table(d.Sectors, l)})
	return err
}

// loadLines loads the table that another device has now.
func (m *maker) loadLines(name string, lines []ctl.Line, readOnly bool) error {
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintln(&text, l)
	}
	_, err := m.client.Load(m.ctx, ctl.Load{Ref: ctl.Ref{Name: name}, Table: text.String(), ReadOnly: readOnly})
	return err
}

func (m *maker) suspend(name string) error {
	_, err := m.client.Suspend(m.ctx, ctl.Suspend{Ref: ctl.Ref{Name: name}})
	return err
}

// resume goes on even if the user has given up meanwhile, so that no device
// stays suspended.
func (m *maker) resume(name string) error {
	_, err := m.client.Resume(context.WithoutCancel(m.ctx), ctl.Suspend{Ref: ctl.Ref{Name: name}})
	return err
}

// clear empties the inactive slot of a device.
func (m *maker) clear(name string) error {
	_, err := m.client.Clear(context.WithoutCancel(m.ctx), ctl.Ref{Name: name})
	return err
}

func (m *maker) remove(name string) error {
	return m.client.Remove(context.WithoutCancel(m.ctx), ctl.Remove{Ref: ctl.Ref{Name: name}})
}

func (m *maker) message(device, format string, args ...any) error {
	_, err := m.client.Message(m.ctx, ctl.Message{Ref: ctl.Ref{Name: device}, Text: fmt.Sprintf(format, args...)})
	return err
}

// users are the devices whose tables use a device.
func (m *maker) users(n ctl.Number) ([]ctl.Device, error) {
	ds, err := m.client.List(m.ctx, ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithDeps, ctl.WithStatus}, Noflush: true})
	if err != nil {
		return nil, err
	}
	var users []ctl.Device
	for _, d := range ds {
		for _, dep := range d.Deps {
			if dep.Number == n {
				users = append(users, d)
			}
		}
	}
	return users, nil
}

// depNamed is the device that a table line names: by its number, as tables are
// printed.
func depNamed(d ctl.Device, name string) (ctl.Dep, bool) {
	for _, dep := range d.Deps {
		if dep.Number.String() == name {
			return dep, true
		}
	}
	return ctl.Dep{}, false
}
