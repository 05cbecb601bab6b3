package run

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"udm/test/need"
)

var groups = flag.Int("groups", 1, "number of random volume groups of TestRandomGroups")

// TestRandomGroups gives lvm2 and udm lvm the same random commands, for a group of its own
// each. Half way they swap the groups. lvm2 sees no difference between the groups, udm
// none either, and the volumes keep their content.
func TestRandomGroups(t *testing.T) {
	if testing.Short() {
		return // TestDocument uses lvm2, too
	}
	need.Tools(t, "lvm", "thin_check")
	r := newRig(t)
	for seed := range uint64(*groups) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			sub := *r
			sub.TB = t
			newRandomGroup(&sub, seed).run()
		})
	}
}

// randomGroup is the model of both groups.
type randomGroup struct {
	*rig
	rng     *rand.Rand
	disks   int
	members int // of the disks, the first ones
	volumes []*randomVolume
	made    int
	written int // words
	// prefix is that of files, and device the path of a disk for lvm2.
	prefix string
	device func(group string, disk int) string
}

type randomVolume struct {
	name, kind, below string         // kind: linear, striped, pool, thin, snapshot; below: pool or origin
	size              int            // MiB
	words             map[int]string // what was written, by the MiB
}

func newRandomGroup(r *rig, seed uint64) *randomGroup {
	g := &randomGroup{rig: r, rng: rand.New(rand.NewPCG(seed, 16)), device: runDevice}
	g.disks = 1 + g.rng.IntN(3)
	return g
}

func (g *randomGroup) run() {
	g.do(`rm -f *.img *.list`)
	first := g.begin()
	g.native("a", first)
	g.compare(g.commandsOf("b", first), g.fill())
	second := g.commands(5)
	g.native("b", second)
	g.compare(g.commandsOf("a", second), g.verify())
}

// begin makes the disks, and returns the first commands.
func (g *randomGroup) begin() []string {
	g.do("truncate -s 256M " + strings.Join(append(g.images("a"), g.images("b")...), " "))
	extent := []string{"512K", "1M", "2M"}[g.rng.IntN(3)]
	g.members = max(1, g.disks-g.rng.IntN(2))
	return append([]string{fmt.Sprintf("vgcreate -s %s VG DISKS0,%d", extent, g.members)}, g.commands(4+g.rng.IntN(5))...)
}

// groupNames are those of the group that udm makes, and of the one that lvm2 makes.
var groupNames = []string{"a", "b"}

// images are the files of a group.
func (g *randomGroup) images(group string) (list []string) {
	for n := range g.disks {
		list = append(list, fmt.Sprintf("%s%s%d.img", g.prefix, group, n+1))
	}
	return list
}

// runDevice is a disk under udm run.
func runDevice(group string, disk int) string { return fmt.Sprintf("/dev/sd%s%c", group, 'a'+disk) }

// native runs commands by udm lvm.
func (g *randomGroup) native(group string, commands []string) {
	g.Helper()
	var script strings.Builder
	for _, c := range commands {
		c, _, end := g.disksOf(strings.Replace(c, "VG", group, 1))
		fmt.Fprintf(&script, "$UDM lvm %s %s\n", c, strings.Join(g.images(group)[:end], " "))
	}
	g.do(script.String())
}

// disksOf returns a command without its last word, DISKSfrom,end, and these numbers.
// Other commands name no disks to lvm2, and all of them to udm.
func (g *randomGroup) disksOf(c string) (command string, from, end int) {
	command, which, found := strings.Cut(c, " DISKS")
	if !found {
		return command, g.disks, g.disks
	}
	_, err := fmt.Sscanf(which, "%d,%d", &from, &end)
	g.must(err)
	return command, from, end
}

// commandsOf is commands as lvm2 gets them.
func (g *randomGroup) commandsOf(group string, commands []string) string {
	var script strings.Builder
	var devices []string
	for i := range g.disks {
		devices = append(devices, g.device(group, i))
	}
	for _, c := range commands {
		c, from, end := g.disksOf(strings.Replace(c, "VG", group, 1))
		word, rest, _ := strings.Cut(c, " ")
		fmt.Fprintf(&script, "%s -q -y %s %s\n", word, rest, strings.Join(devices[from:end], " "))
	}
	return script.String()
}

// fill is a script that writes a word to each volume, in a place where there was another
// one or none.
func (g *randomGroup) fill() string {
	var b strings.Builder
	for _, v := range g.volumes {
		if v.kind != "pool" {
			g.written++
			at := g.rng.IntN(v.size)
			v.words[at] = fmt.Sprintf("word%04d", g.written)
			fmt.Fprintf(&b, "%s %d %s\n", v.name, at, v.words[at])
		}
	}
	return wordsIn("write", b.String())
}

// verify is a script that compares all words that were written.
func (g *randomGroup) verify() string {
	var b strings.Builder
	for _, v := range g.volumes {
		for at, word := range v.words {
			fmt.Fprintf(&b, "%s %d %s\n", v.name, at, word)
		}
	}
	return wordsIn("compare", b.String())
}

// wordsIn is a script that writes or compares words: each line of the list has a volume, a
// MiB of it, and the word at its start. DEV is to be replaced by the folder of volumes.
func wordsIn(what, list string) string {
	return `perl -e '
	my ($what, $prefix, $list) = @ARGV; my $bad = 0;
	for (split "\n", $list) {
		my ($name, $at, $word, $f) = split;
		open $f, "+<", "$prefix$name" or open $f, "<", "$prefix$name" or die "$prefix$name: $!";
		sysseek $f, $at << 20, 0;
		if ($what eq "write") { syswrite $f, $word or die "$prefix$name: $!" }
		else { sysread $f, my $is, 8; if ($is ne $word) { print "$name: at $at MiB is $is, not $word\n"; $bad = 1 } }
		$f->sync or die "$prefix$name: $!" if $what eq "write";
	}
	exit $bad' -- ` + what + " DEV/VG- '" + list + "'\n"
}

// write writes a file.
func (g *randomGroup) write(name, text string) {
	g.Helper()
	g.must(os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o644))
}

// ask is a script that checks a group, runs a script with its volumes active, and prints
// what lvm2 says about it. It uses few commands of lvm2, which start slowly in a kernel.
func (g *randomGroup) ask(group, active string) string {
	var check strings.Builder
	for i := range g.members {
		fmt.Fprintf(&check, "pvck %s\n", g.device(group, i))
	}
	before := lvmFile(check.String()+"vgck VG\nvgchange -q -ay -K VG\n") + " >/dev/null\n"
	after := lvmFile(`vgchange -q -an VG
lvs -a --noheadings --separator | -o lv_name,lv_size,lv_permissions,origin,pool_lv,data_lv,metadata_lv,transaction_id,lv_role VG
vgs --noheadings --separator | -o pv_count,vg_extent_size,vg_extent_count VG
`) + " >said\ngrep -v -e '^ *[[]*x' -e ' now active$' said | sort -u\n"
	return strings.NewReplacer("VG", group, "DEV", "/dev/mapper").Replace(before + active + after)
}

// lvmFile is a command that lets lvm run commands up to the first one that fails.
func lvmFile(commands string) string {
	return "printf '#!/sbin/lvm\\n%s' '" + commands + "' >commands\nlvm commands"
}

// questions is a script by which lvm2 runs commands and judges both groups.
func (g *randomGroup) questions(commands, active string) string {
	return "set -e\n" + lvmFile(commands) + "\necho ==\n" + g.ask("a", active) + "echo ==\n" + g.ask("b", active)
}

// compare lets lvm2 run commands, and a script on each group while its volumes are active.
// It fails unless lvm2 and udm see the same in both groups.
func (g *randomGroup) compare(commands, active string) {
	g.Helper()
	disks := ""
	for _, group := range groupNames {
		for i, f := range g.images(group) {
			disks += fmt.Sprintf(" --disk %s=%s", strings.TrimPrefix(g.device(group, i), "/dev/"), f)
		}
	}
	g.write("script.sh", g.questions(commands, active))
	g.judge(g.do("$UDM run --private --as-root" + disks + " -- sh script.sh 2>&1"))
}

// detection is what lvm2 says about volumes of the types error and zero.
var detection = regexp.MustCompile(`(?m)^ *Internal error: WARNING: Failed to properly detect layout and role for LV b/x\d\.\n`)

// judge fails unless lvm2's answers are the same for both groups, and what udm sees, too.
func (g *randomGroup) judge(answers string) {
	g.Helper()
	parts := strings.Split(detection.ReplaceAllString(answers, ""), "==\n")
	if len(parts) != 3 || strings.TrimSpace(parts[1]) != strings.TrimSpace(parts[2]) {
		g.Fatalf("lvm2 sees\n%s", strings.Join(parts, "==\n"))
	}
	scan := func(group string) string {
		return g.do("$UDM lvm scan " + strings.Join(g.images(group), " ") + " | grep '^" + group + " ' | sed 's/^" + group + " *//' | grep -v ^x | sort")
	}
	if a, b := scan("a"), scan("b"); a != b {
		g.Fatalf("udm sees\n%s\nand\n%s", a, b)
	}
}

// commands are random commands that make sense. VG and DISKS are to be replaced.
func (g *randomGroup) commands(n int) (list []string) {
	for len(list) < n {
		if c := g.command(); c != "" {
			list = append(list, c)
		}
	}
	return list
}

// pick is a random volume of one of the kinds; nil: there is none.
func (g *randomGroup) pick(kinds ...string) *randomVolume {
	var of []*randomVolume
	for _, v := range g.volumes {
		if slices.Contains(kinds, v.kind) {
			of = append(of, v)
		}
	}
	if len(of) == 0 {
		return nil
	}
	return of[g.rng.IntN(len(of))]
}

func (g *randomGroup) newVolume(kind, below string, size int) *randomVolume {
	g.made++
	v := &randomVolume{fmt.Sprintf("v%d", g.made), kind, below, size, map[int]string{}}
	g.volumes = append(g.volumes, v)
	return v
}

// used reports whether a volume is the pool or origin of another one.
func (g *randomGroup) used(v *randomVolume) bool {
	return slices.ContainsFunc(g.volumes, func(o *randomVolume) bool { return o.below == v.name && (o.kind != "thin" || v.kind == "pool") })
}

// command is a random command, or "" if there is nothing to do it to.
func (g *randomGroup) command() string {
	size := 4 * (1 + g.rng.IntN(3))
	switch g.rng.IntN(12) {
	case 0:
		v := g.newVolume("linear", "", size)
		return fmt.Sprintf("lvcreate -L %dM -n %s VG", size, v.name)
	case 1:
		if g.members > 1 {
			v := g.newVolume("striped", "", size)
			return fmt.Sprintf("lvcreate -L %dM -i 2 -I 16K -n %s VG", size, v.name)
		}
	case 2:
		if g.pick("pool") == nil {
			v := g.newVolume("pool", "", 16+size)
			return fmt.Sprintf("lvcreate --type thin-pool -L %dM --poolmetadatasize 4M -c %dK -n %s VG", v.size, 64<<g.rng.IntN(2), v.name)
		}
	case 3, 4:
		if p := g.pick("pool"); p != nil {
			v := g.newVolume("thin", p.name, 10*size)
			return fmt.Sprintf("lvcreate -V %dM -n %s --thinpool %s VG", v.size, v.name, p.name)
		}
	case 5:
		if o := g.pick("thin"); o != nil {
			v := g.newVolume("thin", o.below, o.size)
			maps.Copy(v.words, o.words)
			return fmt.Sprintf("lvcreate -s -n %s VG/%s", v.name, o.name)
		}
	case 6:
		if o := g.pick("linear", "striped"); o != nil {
			v := g.newVolume("snapshot", o.name, o.size)
			maps.Copy(v.words, o.words)
			return fmt.Sprintf("lvcreate -s -L 2M -n %s VG/%s", v.name, o.name)
		}
	case 7:
		if v := g.pick("linear", "striped", "thin", "pool"); v != nil && (!g.used(v) || v.kind == "pool") {
			v.size += size
			return fmt.Sprintf("lvextend -L +%dM VG/%s", size, v.name)
		}
	case 8:
		if v := g.pick("linear", "striped", "thin", "snapshot"); v != nil && !g.used(v) {
			g.volumes = slices.DeleteFunc(g.volumes, func(o *randomVolume) bool { return o == v })
			return "lvremove VG/" + v.name
		}
	case 9:
		if v := g.pick("linear", "striped", "thin", "pool"); v != nil {
			g.made++
			old, name := v.name, fmt.Sprintf("v%d", g.made)
			for _, o := range g.volumes {
				if o.below == old {
					o.below = name
				}
			}
			v.name = name
			return fmt.Sprintf("lvrename VG/%s %s", old, name)
		}
	case 10:
		if v := g.pick("linear", "striped", "thin"); v != nil && !g.used(v) && v.size > size {
			v.size -= size
			maps.DeleteFunc(v.words, func(at int, _ string) bool { return at >= v.size })
			return fmt.Sprintf("lvreduce -f -L -%dM VG/%s", size, v.name)
		}
	case 11:
		if g.members < g.disks {
			g.members++
			return fmt.Sprintf("vgextend VG DISKS%d,%d", g.members-1, g.members)
		}
	}
	return ""
}
