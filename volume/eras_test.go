package volume

import (
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"udm/dm"
)

// The eras of an era device are checkpoints: what differs from its content when an era
// began is told of, and nothing that was not written since.
func TestChangesSinceEras(t *testing.T) {
	r := boot(t, newHost())
	r.task(func() {
		origin, metadata := r.image("o.img", 160), "/img/o.era"
		r.ok(hostFiles{r.h, r.sim}.Make([]File{{Path: metadata, Size: 1 << 20}}))
		r.ok(r.k.Create(ctx, []Device{{Name: "x", Table: []dm.Spec{{Len: 160, Type: "era", Params: metadata + " " + origin + " 8"}}}}))
		d, err := r.c.Name("x")
		r.ok(err)
		rnd := rand.New(rand.NewPCG(1, 1))
		begun := [][]byte{nil, r.holds("x")} // the content when each era began
		touched := []map[uint64]bool{nil, {}}
		for len(begun) < 6 {
			r.touch("x", rnd, 8, touched[len(touched)-1])
			_, err := d.Message(0, "checkpoint")
			r.ok(err)
			begun, touched = append(begun, r.holds("x")), append(touched, map[uint64]bool{})
		}
		r.touch("x", rnd, 8, touched[len(touched)-1])
		names, err := r.m.Checkpoints("x")
		r.ok(err)
		if !slices.Equal(names, []string{"1", "2", "3", "4", "5"}) {
			t.Errorf("checkpoints %v", names)
		}
		now, since := r.holds("x"), map[uint64]bool{}
		for n := len(begun) - 1; n > 0; n-- {
			for b := range touched[n] {
				since[b] = true
			}
			r.differ(r.changesOf("x", names[n-1]), begun[n], now, since)
		}
		for _, since := range []string{"0", "6", "x", "01"} {
			if _, err := r.m.Changes(ctx, ChangesSpec{Name: "x", Since: since}); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("since %s: %v", since, err)
			}
		}
	})
	r.stop()
}
