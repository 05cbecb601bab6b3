package main

import (
	"context"
	"fmt"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// stack is a Control over devices by name, in this process.
type stack struct {
	c     *dm.Control
	disks map[string]blk.Device
}

func newStack(disks map[string]blk.Device) *stack {
	s := &stack{disks: disks}
	s.c = dm.NewControl(env.Real(), s, all.Types()...)
	return s
}

// keep is a device that Close does not close: it outlives the tables that open it.
type keep struct{ blk.Device }

func (keep) Close() error { return nil }

// Open makes the stack a dm.Opener.
func (s *stack) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	d := s.disks[name]
	if d == nil {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "no %s", name)
	}
	n := len(name)
	for _, c := range name {
		n = n*31 + int(c)
	}
	return keep{d}, dm.Number{Major: 7, Minor: uint32(n) & 0xfffff}, nil
}

// device makes a running device of one table line.
func (s *stack) device(name, format string, args ...any) (*dm.Device, error) {
	specs, err := dm.ParseTable(fmt.Sprintf(format, args...))
	if err != nil {
		return nil, err
	}
	d, err := s.c.Create(name, "", -1)
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	return d, err
}

func (s *stack) close() error { return s.c.Close() }
