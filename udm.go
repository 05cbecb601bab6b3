// Package udm opens stacks of mapped devices in a program of its own: everything
// that the command udm does with tables, in one import.
//
//	disk, err := udm.Open("0 2048 linear /srv/a.img 0\n2048 2048 linear /srv/b.img 0")
//	defer disk.Close()
//	_, err = disk.WriteAt(p, 4096)           // io.ReaderAt, io.WriterAt, Sync
//	err = disk.Stack().ListenNBD("/tmp/disk.sock") // for any NBD client
//
// Several devices that stand on each other are a [Stack]:
//
//	s := udm.New()
//	defer s.Close()
//	pool, err := s.Create("pool", "0 20971520 thin-pool /srv/meta /srv/data 128 0")
//	_, err = pool.Message("create_thin 0")
//	disk, err := s.Create("disk", "0 2097152 thin /dev/mapper/pool 0")
//
// # Units
//
// Tables, bios and limits count in sectors of 512 bytes; offsets, lengths and
// sizes of io.ReaderAt, io.WriterAt and Size are bytes.
//
// # Tables
//
// A table is text as dmsetup takes it: a line for each target, with its first
// sector, its length, its type and its words. Devices in it are absolute paths of
// files and disks, /dev/mapper/NAME for the devices of the same stack, or what
// package blk/leaf lists. Lines made from values are joined by [Table].
//
// # Ownership
//
// A stack owns its devices and what their tables open, and releases all of it in
// Close. A device from Open owns its stack. Files that a table names are locked
// against other processes while they are open for writing.
//
// # Durability
//
// What was written is durable after Sync, or a flush. Close does not flush.
//
// All methods are safe for concurrent use. What is not here is in the packages
// that this one is made of: Control is the device mapper of a stack.
package udm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// Stack is a set of named devices that may stand on each other.
//
// Lock order: mu is a leaf.
type Stack struct {
	env     env.Env
	control *dm.Control

	mu      sync.Mutex
	closed  bool      // guarded by mu
	devices []*Device // guarded by mu; in the order of their creation
	servers []*server // guarded by mu
}

// New returns a stack without devices.
func New() *Stack {
	e := env.Real()
	return &Stack{env: e, control: dm.NewControl(e, leaf.New(e), all.Types()...)}
}

// Control is the device mapper below: suspend, reload, statistics, events.
func (s *Stack) Control() *dm.Control { return s.control }

// Line is a line of a table: a target of a type, with its words, for length
// sectors from sector start on. The words are a string, or a typed line of the
// target's package.
func Line(start, length uint64, target string, words any) dm.Spec {
	return dm.Spec{Start: start, Len: length, Type: target, Params: fmt.Sprint(words)}
}

// Table is the text of lines, which together begin at sector 0 and leave no gap.
func Table(lines ...dm.Spec) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%d %d %s %s", l.Start, l.Len, l.Type, l.Params), " ") + "\n")
	}
	return b.String()
}

// Create makes a device of the stack and starts it. Tables that come later may
// name it /dev/mapper/NAME.
func (s *Stack) Create(name, table string) (*Device, error) {
	return s.create(name, table, dm.Mode{Write: true})
}

// CreateReadOnly is Create for a device that nobody writes to; what it stands on
// is opened for reading only.
func (s *Stack) CreateReadOnly(name, table string) (*Device, error) {
	return s.create(name, table, dm.Mode{})
}

func (s *Stack) create(name, table string, m dm.Mode) (*Device, error) {
	specs, err := dm.ParseTable(table)
	if err != nil {
		return nil, err
	}
	d, err := s.control.Create(name, "", -1)
	if err != nil {
		return nil, err
	}
	dev, err := s.start(d, specs, m)
	if err != nil {
		_, gone := d.Remove(false)
		return nil, errors.Join(err, gone)
	}
	return dev, nil
}

// start loads a table, lets I/O in and opens the device.
func (s *Stack) start(d *dm.Device, specs []dm.Spec, m dm.Mode) (*Device, error) {
	if err := d.Load(specs, m); err != nil {
		return nil, err
	}
	if err := d.Resume(context.Background(), false); err != nil {
		return nil, err
	}
	h, err := d.Open(m.Write)
	if err != nil {
		return nil, err
	}
	dev := newDevice(s, d, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(errClosed, h.Close())
	}
	s.devices = append(s.devices, dev)
	return dev, nil
}

var errClosed = fmt.Errorf("the stack is closed: %w", blk.Offline)

// Device is the device of a name.
func (s *Stack) Device(name string) (*Device, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.devices, func(d *Device) bool { return d.Name() == name })
	if i < 0 {
		return nil, false
	}
	return s.devices[i], true
}

// Close ends the servers, waits for what is under way, and removes all devices.
// Closing twice does nothing.
func (s *Stack) Close() error {
	s.mu.Lock()
	again, servers, devices := s.closed, s.servers, s.devices
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	var errs []error
	for _, v := range servers {
		errs = append(errs, v.close())
	}
	for _, d := range devices {
		errs = append(errs, d.Device.Close())
	}
	return errors.Join(append(errs, s.control.Close())...)
}

// Open makes a stack of one device, which is called "disk". Closing the device
// closes the stack.
func Open(table string) (*Device, error) {
	s := New()
	d, err := s.Create("disk", table)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	d.owns = true
	return d, nil
}
