package lvm

import (
	"slices"
	"strings"
	"testing"

	"udm/blk/memdev"
	"udm/env"
)

// clone is the disks, each with a device of its own.
func clone(disks []Disk) []Disk {
	all := slices.Clone(disks)
	for i := range all {
		all[i].Device = all[i].Device.(*memdev.Device).Clone()
	}
	return all
}

// change is the group's text on a disk, with one thing in it replaced.
func change(t *testing.T, d Disk, from, to string) {
	t.Helper()
	a := readDisk(env.Real(), d).Areas[0]
	text := a.Text.Section.String()
	if !strings.Contains(text, from) {
		t.Fatalf("there is no %q in %s", from, text)
	}
	writeText(t, d.Device, a, strings.Replace(text, from, to, 1))
}

// wantError fails unless the group cannot be used for a reason.
func wantError(t *testing.T, g *Assembled, want string) {
	t.Helper()
	if _, _, err := g.Tree(TreeOptions{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestCopies(t *testing.T) {
	disks := goldenOf(t)["plain"]
	seqno := Scan(env.Real(), disks).group(t, "lin-vg").Seqno
	if seqno != 8 {
		t.Fatalf("the group has seqno %d, and the test was made for 8", seqno)
	}
	whole := trees(Scan(env.Real(), disks))

	old := clone(disks) // one copy is old
	change(t, old[0], "seqno = 8", "seqno = 7")
	r := Scan(env.Real(), old)
	g := r.group(t, "lin-vg")
	if g.Err != nil || len(g.Problems) != 1 || !strings.Contains(g.Problems[0], "/dev/ubda: metadata at byte 4608 is old: seqno 7 of 8") {
		t.Errorf("an old copy: %v, %q", g.Err, g.Problems)
	}
	if !slices.Equal(trees(r), whole) {
		t.Error("an old copy changes tables")
	}

	torn := clone(disks) // two texts of one seqno
	change(t, torn[0], "pe_start = 2048", "pe_start = 4096")
	wantError(t, Scan(env.Real(), torn).group(t, "lin-vg"), "both have seqno 8 and differ")

	strict := clone(disks) // the newest is not understood: an older one is no way out
	change(t, strict[0], "seqno = 8", "seqno = 9")
	change(t, strict[0], `status = ["RESIZEABLE"`, `status = ["FUTURE"`)
	wantError(t, Scan(env.Real(), strict).group(t, "lin-vg"), `"FUTURE" is not supported`)
}

func TestDuplicates(t *testing.T) {
	disks := goldenOf(t)["plain"]
	g := Scan(env.Real(), append(slices.Clone(disks), Disk{"copy", disks[0].Device})).group(t, "lin-vg")
	wantError(t, g, "/dev/ubda and copy are both ")

	renamed := clone(disks) // another group of the same name
	change(t, renamed[2], "snap {", "lin-vg {")
	r := Scan(env.Real(), renamed)
	n := 0
	for _, g := range r.Groups {
		if g.Name == "lin-vg" && slices.ContainsFunc(g.Problems, func(p string) bool { return strings.Contains(p, "another group with that name") }) {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d groups say that there is another of their name, want 2", n)
	}
}

// Each of these makes the group of a disk unusable, with an error that says where.
func TestRefused(t *testing.T) {
	all := goldenOf(t)
	for _, c := range []struct {
		part     string
		disk     int
		group    string
		from, to string
		want     string
	}{
		{"plain", 2, "snap", "extent_size = 128", "extent_size = 0", "snap/extent_size (line"},
		{"plain", 2, "snap", `format = "lvm2"`, `format = "lvm3"`, `"lvm3" are not supported`},
		{"plain", 2, "snap", `origin = "base"`, `origin = "none"`, `there is no logical volume "none"`},
		{"plain", 2, "snap", `"pv0", 0`, `"pv0", 490`, "lie beyond the end of pv0"},
		{"plain", 2, "snap", `"pv0", 0`, `"pv0", 100`, "belongs to undone and to base"},
		{"plain", 2, "snap", `"pv0", 0`, `"base", 0`, "it contains itself"},
		{"plain", 2, "snap", "segment_count = 1", "segment_count = 2", "segment2: there is no such section"},
		{"plain", 2, "snap", "start_extent = 0", "start_extent = 1", "segment1: 64 extents begin at 1"},
		{"plain", 2, "snap", `type = "snapshot"`, `type = "snapshot+NEW"`, `"NEW" is not supported`},
		{"plain", 2, "snap", `"RESIZEABLE"`, `"RESIZEABLE", "EXPORTED"`, "it is exported"},
		{"thin", 0, "thin", `thin_pool = "pool"`, `thin_pool = "ext"`, `"ext" is not a thin pool`},
		{"thin", 0, "thin", `discards = "ignore"`, `discards = "some"`, `"some" is not supported`},
	} {
		disks := clone(all[c.part])
		change(t, disks[c.disk], c.from, c.to)
		r := Scan(env.Real(), disks)
		checkErrors(t, r)
		wantError(t, r.group(t, c.group), c.want)
	}
}

// What is not known stays where it was.
func TestUnknownIsKept(t *testing.T) {
	disks := clone(goldenOf(t)["plain"])
	change(t, disks[2], "\nmax_lv = 0", "\nfuture_thing = [1, \"x\"]\nmax_lv = 0")
	change(t, disks[2], `type = "striped"`, `type = "newtype"`)
	r := Scan(env.Real(), disks)
	g := r.group(t, "snap")
	if g.Err != nil || !strings.Contains(g.Text.String(), "future_thing = [1, \"x\"]\n") {
		t.Errorf("%v: %s", g.Err, g.Text)
	}
	_, skipped, err := g.Tree(TreeOptions{})
	if err != nil || len(skipped) == 0 || !strings.Contains(skipped[0].Why.Error(), "type newtype, which is not supported") {
		t.Errorf("%v, %v", skipped, err)
	}
}
