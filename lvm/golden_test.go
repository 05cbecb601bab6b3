package lvm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/lvm/golden"
	"udm/lvm/text"
)

const goldenDir = "golden/testdata"

// unpack is the disks of a part.
func unpack(t testing.TB, part string) (disks []Disk) {
	for i := range golden.Disks {
		disks = append(disks, Disk{diskName(i), memdev.New(golden.Sectors)})
	}
	err := golden.Unpack(part, func(disk int, offset int64, p []byte) error {
		write(t, disks[disk].Device, p, uint64(offset))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return disks
}

// diskName is what the kernel that made the disks called one.
func diskName(i int) string { return "/dev/ubd" + string(rune('a'+i)) }

func write(t testing.TB, d blk.Device, p []byte, offset uint64) {
	t.Helper()
	if err := blk.WriteSectors(env.Real(), d, p, offset/blk.SectorSize, 0); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, d blk.Device, n int, offset uint64) []byte {
	t.Helper()
	p := make([]byte, n)
	if err := blk.ReadSectors(env.Real(), d, p, offset/blk.SectorSize); err != nil {
		t.Fatal(err)
	}
	return p
}

// group is the one of a name, which has to be the only one.
func (r *Result) group(t testing.TB, name string) *Assembled {
	t.Helper()
	var found *Assembled
	for _, g := range r.Groups {
		if g.Name == name && found == nil {
			found = g
		} else if g.Name == name {
			t.Fatalf("there are two groups %s", name)
		}
	}
	if found == nil {
		t.Fatalf("there is no group %s", name)
	}
	return found
}

// answers are what the kernel and lvm2 said when the disks were made.
type answers struct {
	t    testing.TB
	dir  string
	name string
}

// rows are the lines of an answer, in fields.
func (a answers) rows(ext, separator string) (rows [][]string) {
	b, err := os.ReadFile(filepath.Join(a.dir, a.name+"."+ext))
	if err != nil {
		a.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		rows = append(rows, strings.Split(strings.TrimSpace(line), separator))
	}
	return rows
}

// devices are the kernel's devices of a group, in the order of their minors, in the
// form of describe.
func (a answers) devices(group string) (list []string) {
	numbers := a.rows("numbers", " ")
	slices.SortFunc(numbers, func(x, y []string) int { return number(a.t, x[1]) - number(a.t, y[1]) })
	names := map[string]string{}
	for i := range golden.Disks {
		names[fmt.Sprintf("98:%d", 16*i)] = diskName(i)
	}
	for _, n := range numbers {
		names[n[0]+":"+n[1]] = "/dev/mapper/" + n[2]
	}
	tables := map[string]string{}
	for _, row := range a.rows("table", ": ") {
		words := strings.Split(row[1], " ")
		for i, w := range words {
			if name, ok := names[w]; ok {
				words[i] = name
			}
		}
		tables[row[0]] += strings.Join(words, " ") + "; "
	}
	for _, n := range numbers {
		if strings.HasPrefix(n[2], DeviceName(group, "", "")) {
			list = append(list, fmt.Sprintf("%s %s %t: %s", n[2], n[3], strings.HasSuffix(n[4], "r"), tables[n[2]]))
		}
	}
	return list
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// describe is a device in words that can be compared.
func describe(ds []Device) (list []string) {
	for _, d := range ds {
		var table strings.Builder
		for _, l := range d.Table {
			table.WriteString(strings.TrimSpace(l.String()) + "; ")
		}
		list = append(list, fmt.Sprintf("%s %s %t: %s", d.Name, d.UUID, d.ReadOnly, &table))
	}
	return list
}

// checkTree compares the devices of a group with the kernel's.
func (a answers) checkTree(g *Assembled, o TreeOptions, wantSkipped ...string) {
	a.t.Helper()
	ds, skipped, err := g.Tree(o)
	if err != nil {
		a.t.Fatal(err)
	}
	got, want := describe(ds), activatedAgain(a.devices(g.Name))
	if wantSkipped != nil { // what lies below those is the kernel's alone
		want = slices.DeleteFunc(want, func(d string) bool { return !slices.Contains(got, d) })
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		a.t.Errorf("%s: got\n%s\nwant\n%s", g.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var names []string
	for _, s := range skipped {
		names = append(names, s.LV)
	}
	if slices.Sort(names); !slices.Equal(names, wantSkipped) {
		a.t.Errorf("%s: skipped %v, want %v", g.Name, skipped, wantSkipped)
	}
}

// activatedAgain is the tables of new devices as LVM loads them later: it says once only that
// a new mirror counts as in sync. Until version 2.03.17 it takes mq, another name of the same,
// for the policy of every cachevol.
func activatedAgain(devices []string) []string {
	fix := strings.NewReplacer("mirror core 2", "mirror core 1", "mirror disk 3", "mirror disk 2", " nosync", "", " mq ", " smq ")
	for i, d := range devices {
		devices[i] = fix.Replace(d)
	}
	return devices
}

// checkReports compares a group with what lvs, vgs and pvs said.
func (a answers) checkReports(r *Result, g *Assembled) {
	a.t.Helper()
	seen := map[string]bool{}
	for _, row := range a.rows("lvs", "|") {
		if row[0] == g.Name {
			name := strings.Trim(row[1], "[]")
			seen[name] = true
			a.checkVolume(g, g.LV(name), row)
		}
	}
	for _, l := range g.LVs {
		if !seen[l.Name] && !l.virtual() {
			a.t.Errorf("lvs does not know %s/%s", g.Name, l.Name)
		}
	}
	a.checkGroup(g)
	a.checkDisks(r, g)
}

func (a answers) checkVolume(g *Assembled, l *LV, row []string) {
	a.t.Helper()
	if l == nil {
		a.t.Errorf("there is no volume %s/%s", g.Name, row[1])
		return
	}
	health := ""
	if g.Partial(l) {
		health = "partial"
	}
	kind := l.Type()
	if l.snapshot != nil {
		kind = row[5] // lvs has the type of the store
	}
	name := l.Name
	if !l.Visible() {
		name = "[" + name + "]"
	}
	got := []string{name, l.ID.String(), strconv.FormatUint(l.Extents()*g.ExtentSize, 10), kind, l.Origin(), l.Pool(), health, strings.Join(l.Tags, ",")}
	want := []string{row[1], row[2], row[4], row[5], strings.Trim(row[6], "[]"), strings.Trim(row[7], "[]"), row[10], row[11]}
	if !slices.Equal(got, want) {
		a.t.Errorf("%s/%s: got %q, want %q", g.Name, l.Name, got, want)
	}
}

func (a answers) checkGroup(g *Assembled) {
	a.t.Helper()
	for _, row := range a.rows("vgs", "|") {
		if row[0] != g.Name {
			continue
		}
		var extents, used uint64
		for _, p := range g.PVs {
			extents += p.Count
			for _, u := range p.used {
				used += u.count
			}
		}
		got := []string{g.ID.String(), fmt.Sprint(g.Seqno), fmt.Sprint(g.ExtentSize), fmt.Sprint(extents), fmt.Sprint(extents - used), fmt.Sprint(len(g.Missing()))}
		want := []string{row[1], row[3], row[4], row[5], row[6], row[10]}
		tags := strings.Split(row[7], ",")
		slices.Sort(tags)
		if !slices.Equal(got, want) || strings.Join(slices.Sorted(slices.Values(g.Tags)), ",") != strings.Join(tags, ",") {
			a.t.Errorf("%s: got %q, want %q", g.Name, got, want)
		}
		return
	}
	a.t.Errorf("vgs does not know %s", g.Name)
}

func (a answers) checkDisks(r *Result, g *Assembled) {
	a.t.Helper()
	rows := map[string][]string{}
	for _, row := range a.rows("pvs", "|") {
		rows[row[0]] = row
	}
	for _, p := range g.PVs {
		d := g.Disks[p.Name]
		if d == nil {
			continue
		}
		used := len(slices.DeleteFunc(slices.Clone(d.Areas), func(a *Area) bool { return a.Ignored }))
		got := []string{d.Name, p.ID.String(), g.Name, fmt.Sprint(p.Count * g.ExtentSize), fmt.Sprint(len(d.Areas)), fmt.Sprint(used), fmt.Sprint(p.Count), fmt.Sprint(p.Start)}
		row := rows[d.Name]
		if want := []string{row[0], row[1], row[2], row[3], row[5], row[6], row[7], row[9]}; !slices.Equal(got, want) {
			a.t.Errorf("got %q, want %q", got, want)
		}
	}
}

// checks compare the disks of a part with the answers in a directory.
var checks = map[string]func(t testing.TB, dir string, disks []Disk){"plain": checkPlain, "thin": checkThin, "other": checkOthers}

func checkPlain(t testing.TB, dir string, disks []Disk) {
	t.Helper()
	plain := answers{t, dir, "plain"}
	r := Scan(env.Real(), disks)
	for _, name := range []string{"lin-vg", "snap", "few"} {
		g := r.group(t, name)
		sound(t, g)
		plain.checkReports(r, g)
		if name == "lin-vg" {
			plain.checkTree(g, TreeOptions{}, "off")
		} else {
			plain.checkTree(g, TreeOptions{})
		}
	}
	if d := r.Disks[6]; d.Label == nil || d.Group != nil || d.Err != nil {
		t.Errorf("the disk of no group is %+v", d)
	}
}

func checkThin(t testing.TB, dir string, disks []Disk) {
	t.Helper()
	thin := answers{t, dir, "thin"}
	r := Scan(env.Real(), disks)
	for _, name := range []string{"thin", "wrap"} {
		sound(t, r.group(t, name))
		thin.checkReports(r, r.group(t, name))
		thin.checkTree(r.group(t, name), TreeOptions{Skip: true})
	}
	a := r.Disks[1].Areas[0]
	if a.Text.Offset+a.Text.Size <= a.Size && r.group(t, "wrap").Seqno < 8 {
		t.Errorf("the text of the group wrap never went round: %d bytes at %d of %d", a.Text.Size, a.Text.Offset, a.Size)
	}
}

// checkOthers looks at what udm lacks targets for, and at a group without a disk.
func checkOthers(t testing.TB, dir string, disks []Disk) {
	t.Helper()
	other := answers{t, dir, "other"}
	r := Scan(env.Real(), disks)
	g := r.group(t, "other")
	sound(t, g)
	other.checkReports(r, g)
	other.checkTree(g, TreeOptions{}, "raid0", "raid1", "raid10", "raid5", "sound")
	if _, skipped, _ := g.Tree(TreeOptions{ReadOnly: true}); len(skipped) != 8 || !strings.Contains(fmt.Sprint(skipped), "--over-clones") {
		t.Errorf("read-only it skips %v", skipped)
	}
	sound(t, r.group(t, "miss"))

	missing := answers{t, dir, "missing"}
	r = Scan(env.Real(), disks[1:2])
	g = r.group(t, "miss")
	if got := g.Missing(); g.Err != nil || len(got) != 1 || len(g.Problems) != 1 || !strings.Contains(g.Problems[0], "is missing") {
		t.Errorf("missing %v, problems %q, error %v", got, g.Problems, g.Err)
	}
	missing.checkReports(r, g)
	missing.checkTree(g, TreeOptions{Partial: true})
	ds, skipped, err := g.Tree(TreeOptions{})
	if err != nil || len(ds) != 1 || ds[0].Name != "miss-whole" || len(skipped) != 3 {
		t.Errorf("without the disk: %v, %v, %v", describe(ds), skipped, err)
	}
}

// sound fails if anything is wrong with a group, or if its text does not print as it was.
func sound(t testing.TB, g *Assembled) {
	t.Helper()
	if g.Err != nil || len(g.Problems) > 0 {
		t.Fatalf("%s: %v, problems %q", g.Name, g.Err, g.Problems)
	}
	printed := g.Text.String()
	again, err := text.Parse(printed)
	if err != nil || again.String() != printed {
		t.Errorf("%s: its text does not print as it was: %v", g.Name, err)
	}
	for _, l := range g.LVs {
		for _, s := range l.Segments {
			if _, unknown := s.Kind.(*Other); unknown {
				t.Errorf("%s/%s: type %s is not understood", g.Name, l.Name, s.Type)
			}
		}
	}
}

func goldenOf(t testing.TB) map[string][]Disk {
	disks := map[string][]Disk{}
	for _, part := range golden.Parts {
		disks[part] = unpack(t, part)
	}
	return disks
}

// What lvm2 made in a real kernel is read as lvm2 and the kernel see it.
func TestGolden(t *testing.T) {
	for part, disks := range goldenOf(t) {
		checks[part](t, goldenDir, disks)
	}
}
