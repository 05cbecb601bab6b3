package edit

import (
	"fmt"
	"strings"
	"testing"

	"udm/lvm"
)

// layout is the volumes of a group in words.
func layout(g *lvm.Group) string {
	var b strings.Builder
	for _, l := range g.LVs {
		fmt.Fprintf(&b, "%s %s %d:", l.Name, l.Segments[0].Type, l.Extents())
		for _, s := range l.Segments {
			switch k := s.Kind.(type) {
			case *lvm.Striped:
				fmt.Fprintf(&b, " %d+%d%v", s.Start, s.Count, k.Stripes)
			case *lvm.Thin:
				fmt.Fprintf(&b, " %s %d at %d of %q", k.Pool, k.Device, k.Transaction, k.Origin)
			case *lvm.ThinPool:
				fmt.Fprintf(&b, " %d chunk %d %v", k.Transaction, k.ChunkSize, k.Messages)
			case *lvm.Snapshot:
				fmt.Fprintf(&b, " %s by %s chunk %d", k.Origin, k.COW, k.ChunkSize)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r *rig) want(want string) {
	r.Helper()
	if got := layout(r.sound().Group); got != strings.TrimLeft(want, "\n") {
		r.Errorf("got\n%s\nwant%s", got, want)
	}
}

func TestVolumes(t *testing.T) {
	r := newRig(t, 2)
	r.must(r.create().Commit())
	if a := r.sound(); a.Seqno != 1 || len(a.PVs) != 2 || a.PVs[0].Count != 496 {
		t.Fatalf("%+v", a)
	}
	r.change(func(ed *Edit) error {
		if err := ed.CreateVolume(Volume{Name: "a", Extents: 10}); err != nil {
			return err
		}
		return ed.CreateVolume(Volume{Name: "b", Extents: 9, Layout: Layout{Stripes: 2, StripeSectors: 16}})
	})
	r.change(func(ed *Edit) error { return ed.CreateVolume(Volume{Name: "wide", Extents: 900}) })
	r.change(func(ed *Edit) error { return ed.Resize("a", 20) })
	r.change(func(ed *Edit) error { return ed.Resize("b", 4) })
	r.change(func(ed *Edit) error { return ed.Resize("wide", 300) })
	r.want(`
a striped 20: 0+10[{pv0 0}] 10+10[{pv0 424}]
b striped 4: 0+4[{pv1 0} {pv0 10}]
wide striped 300: 0+300[{pv1 5}]
`)
}

// LVM deactivates volumes in the order of the text, and fails for a part of a pool that
// comes before the pool.
func TestPartsComeLast(t *testing.T) {
	r := newRig(t, 2)
	base(r)
	r.want(`
a striped 10: 0+10[{pv0 0}]
b striped 8: 0+8[{pv1 0} {pv0 10}]
p thin-pool 40: 2 chunk 128 []
t thin 100: p 1 at 0 of ""
ts thin 100: p 2 at 1 of "t"
s striped 3: 0+3[{pv0 118}]
c striped 10: 0+10[{pv0 121}]
p_tdata striped 40: 0+40[{pv0 14}]
p_tmeta striped 32: 0+32[{pv0 54}]
lvol0_pmspare striped 32: 0+32[{pv0 86}]
snapshot0 snapshot 10: a by s chunk 8
`)
}
