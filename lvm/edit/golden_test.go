package edit

import (
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/lvm"
	"udm/lvm/golden"
)

// made is the disks of a part of package golden.
func made(t testing.TB, part string) *rig {
	r := &rig{TB: t}
	for i := range golden.Disks {
		r.disks = append(r.disks, lvm.Disk{Name: "/dev/ubd" + string(rune('a'+i)), Device: memdev.New(golden.Sectors)})
	}
	r.must(golden.Unpack(part, func(disk int, offset int64, p []byte) error {
		return blk.WriteSectors(env.Real(), r.disks[disk].Device, p, uint64(offset)/blk.SectorSize, 0)
	}))
	return r
}

// named finds a group.
func (r *rig) named(name string) *lvm.Assembled {
	r.Helper()
	for _, g := range lvm.Scan(env.Real(), r.disks).Groups {
		if g.Name == name {
			return g
		}
	}
	r.Fatalf("there is no group %s", name)
	return nil
}

// lines are those of a text but for the ones that each commit changes.
func lines(g *lvm.Assembled) map[string]int {
	n := map[string]int{}
	for line := range strings.Lines(g.Text.String()) {
		word, _, _ := strings.Cut(line, " ")
		if word != "seqno" && word != "description" && word != "creation_host" && word != "creation_time" {
			n[line]++
		}
	}
	return n
}

// Groups that lvm2 made are changed and changed back, many times, so that the rings go
// round: everything in their texts stays, and ignored areas stay ignored.
func TestGroupsOfLVM(t *testing.T) {
	for group, part := range map[string]string{"lin-vg": "plain", "few": "plain", "snap": "plain", "thin": "thin", "wrap": "thin", "other": "other"} {
		t.Run(group, func(t *testing.T) {
			r := made(t, part)
			before := r.named(group)
			for range 15 {
				for _, change := range []func(*Edit) error{
					func(ed *Edit) error { return ed.CreateVolume(Volume{Name: "new", Extents: 2}) },
					func(ed *Edit) error { return ed.Rename("new", "newer") },
					func(ed *Edit) error { return ed.Remove("newer") },
				} {
					ed, err := New(env.Real(), r.named(group), author)
					r.must(err)
					r.must(change(ed))
					r.must(ed.Commit())
					if g := r.named(group); g.Err != nil || len(g.Problems) > 0 {
						t.Fatalf("%v, %q", g.Err, g.Problems)
					}
				}
			}
			after := r.named(group)
			want, got := lines(before), lines(after)
			for line, n := range want {
				if got[line] != n {
					t.Errorf("%q is there %d times, want %d", line, got[line], n)
				}
			}
			if len(got) != len(want) || after.Seqno != before.Seqno+45 {
				t.Errorf("%d different lines, want %d; seqno %d after %d", len(got), len(want), after.Seqno, before.Seqno)
			}
			for pv, d := range before.Disks {
				for i, a := range d.Areas {
					if after.Disks[pv].Areas[i].Ignored != a.Ignored {
						t.Errorf("%s: area %d is ignored: %v", pv, i, !a.Ignored)
					}
				}
			}
		})
	}
}

// Thin pools of lvm2 get their messages without being active.
func TestPoolOfLVM(t *testing.T) {
	r := made(t, "thin")
	for _, change := range []func(*Edit) error{
		func(ed *Edit) error { return ed.CreateThin(Thin{Name: "new", Pool: "pool", Extents: 7}) },
		func(ed *Edit) error { return ed.CreateThinSnapshot("snap-of-ext", "onext", false) },
		func(ed *Edit) error { return ed.Remove("t1") },
		func(ed *Edit) error { return ed.CreateThin(Thin{Name: "first", Pool: "bare", Extents: 7}) },
	} {
		ed, err := New(env.Real(), r.named("thin"), author)
		r.must(err)
		r.must(change(ed))
		r.must(ed.Commit())
	}
	one := &rig{TB: t, disks: r.disks[:1]}
	one.sound()
	one.settled()
	text := r.named("thin").Text.String()
	for _, want := range []string{"external_origin = \"ext\"\n}\n}\n\nfirst", "device_id = 5\norigin = \"onext\"\nexternal_origin", "transaction_id = 6\nchunk_size = 128", "transaction_id = 1\nchunk_size = 256"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "message") || strings.Contains(text, "origin = \"t1\"") {
		t.Error(text)
	}
}
