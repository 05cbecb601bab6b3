package dm_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
)

// counted is a target that maps its range to a device and counts failed bios:
// "START LENGTH counted DEVICE OFFSET".
type counted struct {
	target *dm.Target
	dev    *dm.Dev
	offset uint64
	failed atomic.Uint64
}

// newCounted is the type's New. The core closes the device that it opens.
func newCounted(t *dm.Target, args []string) (dm.Mapper, error) {
	if len(args) != 2 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	offset, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid device sector")
	}
	dev, err := t.Open(args[0], true)
	if err != nil {
		return nil, dm.Because(err, "Device lookup failed")
	}
	t.NumFlush = 1 // flushes go to the device, too
	return &counted{target: t, dev: dev, offset: offset}, nil
}

// Map must not block. It says where the clone goes.
func (m *counted) Map(c *dm.Clone) dm.Outcome {
	offset := c.Offset() // before Sector is changed
	c.SetDev(m.dev)
	c.Sector = m.offset + offset
	return dm.Remapped
}

func (m *counted) Close() {}

// EndIO is a hook.
func (m *counted) EndIO(_ *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	if st != blk.OK {
		m.failed.Add(1)
	}
	return st, dm.EndDone
}

// Areas is a hook: the core takes the device's limits from it.
func (m *counted) Areas() []dm.Area {
	return []dm.Area{{Dev: m.dev, Start: m.offset, Len: m.target.Len}}
}

// Status is a hook.
func (m *counted) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return fmt.Sprintf("%s %d", m.dev.Name(), m.offset)
	}
	return strconv.FormatUint(m.failed.Load(), 10)
}

// A custom target: a type, its instances, and hooks.
func ExampleType() {
	e := env.Real()
	types := []*dm.Type{
		{Name: "counted", Version: [3]uint32{1, 0, 0}, New: newCounted, Doc: "counted: a range of a device, with failed bios counted\n"},
		{Name: "broken", New: func(*dm.Target, []string) (dm.Mapper, error) { return broken{}, nil }},
	}
	c := dm.NewControl(e, leaf.New(e), types...)
	defer c.Close()
	run := func(name, table string) *dm.Device {
		d, err := c.Create(name, "", -1)
		must(err)
		specs, err := dm.ParseTable(table)
		must(err)
		must(d.Load(specs, dm.Mode{Write: true}))
		must(d.Resume(context.Background(), false))
		return d
	}
	run("half-broken", "0 8 counted mem:4K 0\n8 8 broken")
	d := run("sum", "0 16 counted /dev/mapper/half-broken 0")
	fmt.Println(blk.WriteSectors(e, d, make([]byte, 4096), 0, 0))
	fmt.Println(blk.WriteSectors(e, d, make([]byte, 4096), 8, 0))
	fmt.Println(d.Lines(dm.Info, false, 0)[0])
	fmt.Println(d.Lines(dm.TableText, false, 0)[0])
	// Output:
	// <nil>
	// I/O error
	// 0 16 counted 1
	// 0 16 counted 254:0 0
}

// broken fails every bio.
type broken struct{}

func (broken) Map(*dm.Clone) dm.Outcome { return dm.Kill }
func (broken) Close()                   {}
