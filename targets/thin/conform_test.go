package thin

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

// stack is an open volume with its pool.
type stack struct {
	blk.Device
	w *busyPool
}

func (s *stack) Close() error {
	if err := s.Device.Close(); err != nil {
		return err
	}
	return s.w.control.Close()
}

// openStack opens volume id of a pool that is not started.
func openStack(w *busyPool, v *vol, create bool) blk.Device {
	w.must(w.start())
	if create {
		w.must(w.message("create_thin %d", v.id))
	}
	w.must(w.open(v))
	d, err := v.dev.Open(true)
	w.must(err)
	return &stack{d, w}
}

func TestConforms(t *testing.T) {
	for name, external := range map[string]bool{"plain": false, "external": true} {
		t.Run(name, func(t *testing.T) {
			blktest.Suite{
				Open: func(t *testing.T) blk.Device {
					w := newBusyPool(t, env.Real())
					w.volBlocks = 40
					return openStack(w, &vol{id: 3, external: external}, true)
				},
				Crash: func(t *testing.T, d blk.Device, seed uint64) blk.Device {
					old := d.(*stack)
					after := old.w.again(t, old.w.meta.CrashClone(seed), old.w.data.CrashClone(seed+1))
					after.e = env.Real()
					if err := old.Close(); err != nil {
						t.Fatal(err)
					}
					return openStack(after, &vol{id: 3, external: external}, false)
				},
			}.Run(t)
		})
	}
}
