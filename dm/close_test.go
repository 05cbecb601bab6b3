package dm

import (
	"testing"
	"time"

	"udm/env"
)

// slowly is "slowly DEVICE": taking it down takes a while.
type slowly struct {
	scripted
	sim *env.Sim
}

func (s *slowly) Close() {
	over := false
	s.sim.AfterFunc(time.Millisecond, func() { over = true })
	s.sim.NewWait().Until(func() bool { return over })
}

// TestCloseDuringARemoval: a device that was marked for removal and is being
// removed keeps those below it open; closing the set waits for it and takes them.
func TestCloseDuringARemoval(t *testing.T) {
	r := newRig(t)
	c := NewControl(r.sim, r, scriptType, &Type{Name: "slowly", New: func(ti *Target, args []string) (Mapper, error) {
		d, err := ti.Open(args[0], true)
		return &slowly{scripted{dev: d}, r.sim}, err
	}})
	r.c, c = c, r.c
	r.device("low", "0 64 script g0 0")
	top := r.device("top", "0 64 slowly /dev/mapper/low")
	h, err := top.Open(true)
	r.must(err)
	_, err = top.Remove(true)
	r.must(err)
	r.must(h.Close())
	for len(r.c.List()) > 1 && r.sim.Step() {
	}
	r.must(r.c.Close())
	r.c = c
}
