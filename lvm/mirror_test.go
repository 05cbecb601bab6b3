package lvm

import (
	"slices"
	"testing"

	"udm/env"
)

// tableOf is the table of a volume alone.
func tableOf(t *testing.T, g *Assembled, name string, o TreeOptions) (lines []string) {
	t.Helper()
	o.Only = []string{name}
	ds, skipped, err := g.Tree(o)
	if err != nil || len(skipped) > 0 {
		t.Fatal(skipped, err)
	}
	for _, l := range ds[len(ds)-1].Table {
		lines = append(lines, l.String())
	}
	return lines
}

func wantTable(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A pvmove that was interrupted has parts that are moved, one that is being copied, and parts
// that are not moved.
func TestPvmove(t *testing.T) {
	g := Scan(env.Real(), unpack(t, "other")).group(t, "other")
	l := g.LV("moved")
	first := *l.Segments[0]
	l.Status, l.Segments = append(l.Status, "PVMOVE", "LOCKED"), nil
	for i, moved := range []uint64{8, 0, 0} {
		s, k := first, *first.Kind.(*Mirror)
		s.Start, k.Moved = uint64(i)*8, moved
		s.Kind = &k
		l.Segments = append(l.Segments, &s)
	}
	const one, two = "/dev/mapper/other-moved_mimage_0 0", "/dev/mapper/other-moved_mimage_1 0"
	wantTable(t, tableOf(t, g, "moved", TreeOptions{}), "0 1024 linear "+two, "1024 1024 mirror core 1 1024 2 "+one+" "+two, "2048 1024 linear "+one)
	wantTable(t, tableOf(t, g, "moved", TreeOptions{ReadOnly: true}), "0 1024 linear "+two, "1024 1024 linear "+one, "2048 1024 linear "+one)
}

// Read-only, a mirror is its first copy, or the first one that is whole.
func TestReadOnlyMirror(t *testing.T) {
	g := Scan(env.Real(), unpack(t, "other")).group(t, "other")
	wantTable(t, tableOf(t, g, "mirror", TreeOptions{ReadOnly: true}), "0 1024 linear /dev/mapper/other-mirror_mimage_0 0")
	delete(g.Disks, g.LV("mirror_mimage_0").Segments[0].Kind.(*Striped).Stripes[0].Name)
	wantTable(t, tableOf(t, g, "mirror", TreeOptions{ReadOnly: true, Partial: true}), "0 1024 linear /dev/mapper/other-mirror_mimage_1 0")
}

func TestRegionSize(t *testing.T) {
	for _, c := range [][4]uint64{{128, 8, 4096, 1024}, {8192, 3, 4096, 4096}, {768, 6, 4096, 512}, {128, 64, 0, 4096}} {
		if got := regionSize(c[0], c[1], c[2]); uint64(got) != c[3] {
			t.Errorf("%v: %d", c, got)
		}
	}
}
