package blktest_test

import (
	"fmt"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/faultdev"
	"udm/blk/logdev"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/env"
)

const size = 8192

func TestMemdev(t *testing.T) {
	blktest.TestDevice(t, func(*testing.T) blk.Device { return memdev.New(size) })
}

func TestVolatileMemdev(t *testing.T) {
	blktest.Suite{
		Open: func(*testing.T) blk.Device { return memdev.New(size, memdev.Volatile) },
		Crash: func(t *testing.T, d blk.Device, seed uint64) blk.Device {
			return d.(*memdev.Device).CrashClone(seed)
		},
	}.Run(t)
}

// Tests a disk that can only read, write and flush, in small pieces.
func TestPoorMemdev(t *testing.T) {
	poor := func(l *blk.Limits) {
		*l = blk.DefaultLimits(l.Size)
		l.LogicalBlock, l.PhysicalBlock, l.MinIO, l.MaxSectors = 4096, 4096, 4096, 16
		l.VolatileCache = true
	}
	blktest.Suite{
		Open: func(*testing.T) blk.Device { return memdev.New(size, memdev.Volatile, memdev.Tune(poor)) },
		Crash: func(t *testing.T, d blk.Device, seed uint64) blk.Device {
			return d.(*memdev.Device).CrashClone(seed)
		},
	}.Run(t)
}

func TestNulldev(t *testing.T) {
	blktest.Suite{Forgets: true, Open: func(*testing.T) blk.Device { return nulldev.New(size) }}.Run(t)
}

func TestWrappers(t *testing.T) {
	for name, wrap := range map[string]func(blk.Device) blk.Device{
		"check": func(d blk.Device) blk.Device { return checkdev.New(d, checkdev.Options{Preflush: true}) },
		"fault": func(d blk.Device) blk.Device { return faultdev.New(env.Real(), d, 1) },
		"log":   func(d blk.Device) blk.Device { return logdev.New(d, &logdev.Log{}, "") },
		"gate": func(d blk.Device) blk.Device {
			g := blktest.NewGate(env.Real(), d)
			g.Open()
			return g
		},
		"three": func(d blk.Device) blk.Device {
			return logdev.New(checkdev.New(faultdev.New(env.Real(), d, 1), checkdev.Options{}), &logdev.Log{}, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			blktest.TestDevice(t, func(*testing.T) blk.Device { return wrap(memdev.New(size)) })
			blktest.PassesExtents(t, wrap)
		})
	}
}

// Tests sizes that are not divisible by larger powers of two than the suite
// requires.
func TestOddSizes(t *testing.T) {
	for _, sectors := range []uint64{2048, 2112, 3072, 4032, 4097} {
		t.Run(fmt.Sprint(sectors), func(t *testing.T) {
			blktest.TestDevice(t, func(*testing.T) blk.Device { return memdev.New(sectors) })
		})
	}
}

// In the simulator every bio takes time, so their order is random.
func TestSlowDeviceInTheSimulator(t *testing.T) {
	s := env.NewSim(7)
	blktest.Suite{Env: s, Open: func(*testing.T) blk.Device {
		d := faultdev.New(s, memdev.New(size), 1)
		d.SetRules(faultdev.Rule{Percent: 50, Delay: 1000})
		return d
	}}.Run(t)
}
