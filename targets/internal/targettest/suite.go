package targettest

import (
	"context"
	"errors"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

// Conforms runs the conformance suite on a stack of mapped devices in the
// production environment, over disks with volatile caches whose power is cut.
// Table i makes the device that later tables call /dev/dm-I; the last one is
// the device under test.
func Conforms(t *testing.T, s blktest.Suite, types []*dm.Type, tables ...string) {
	t.Helper()
	conforms(t, s, types, tables, func(blk.Device) error { return nil })
}

// ConformsWritten is Conforms for devices that cannot be read before they have been written: they
// are filled with zeroes first.
func ConformsWritten(t *testing.T, s blktest.Suite, types []*dm.Type, tables ...string) {
	t.Helper()
	conforms(t, s, types, tables, func(d blk.Device) error {
		err := blk.WriteSectors(env.Real(), d, make([]byte, d.Limits().Size*blk.SectorSize), 0, 0)
		return errors.Join(err, blk.FlushDevice(env.Real(), d))
	})
}

func conforms(t *testing.T, s blktest.Suite, types []*dm.Type, tables []string, prepare func(blk.Device) error) {
	t.Helper()
	s.Open = func(t *testing.T) blk.Device {
		ds := &disks{
			opts: []memdev.Option{memdev.Volatile},
			gate: func(d blk.Device) blk.Device { return d },
		}
		d := openStack(t, ds, types, tables)
		if err := prepare(d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	if !s.Forgets {
		s.Crash = func(t *testing.T, d blk.Device, seed uint64) blk.Device {
			old := d.(*stack)
			after := old.disks.crash(seed)
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			return openStack(t, after, types, tables)
		}
	}
	s.Run(t)
}

// stack is the open device on top of a Control of its own.
type stack struct {
	blk.Device
	disks   *disks
	control *dm.Control
}

func openStack(t *testing.T, ds *disks, types []*dm.Type, tables []string) blk.Device {
	t.Helper()
	s := &stack{disks: ds, control: dm.NewControl(env.Real(), ds, types...)}
	for i, text := range tables {
		specs, err := dm.ParseTable(text)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.control.Create(string(rune('p'+i)), "", i)
		if err == nil {
			err = d.Load(specs, dm.Mode{Write: true})
		}
		if err == nil {
			err = d.Resume(context.Background(), false)
		}
		if err == nil && i == len(tables)-1 {
			s.Device, err = d.Open(true)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Close waits for all I/O, as removing the devices does.
func (s *stack) Close() error {
	if err := s.Device.Close(); err != nil {
		return err
	}
	return s.control.Close()
}
