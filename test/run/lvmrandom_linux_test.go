package run

import (
	"flag"
	"fmt"
	"math/rand/v2"
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
			g := &randomGroup{rig: &sub, rng: rand.New(rand.NewPCG(seed, 16)), content: map[string]string{}}
			g.run()
		})
	}
}

// randomGroup is the model of both groups.
type randomGroup struct {
	*rig
	rng     *rand.Rand
	disks   int
	volumes []*randomVolume
	made    int
	content map[string]string // by volume: what is at its start; "": unknown
}

type randomVolume struct {
	name, kind, below string // kind: linear, striped, pool, thin, snapshot; below: pool or origin
	size              int    // MiB
}

func (g *randomGroup) run() {
	g.disks = 1 + g.rng.IntN(3)
	g.do(`rm -f *.img; for n in $(seq ` + fmt.Sprint(g.disks) + `); do truncate -s 256M a$n.img b$n.img; done`)
	extent := []string{"512K", "1M", "2M"}[g.rng.IntN(3)]
	first := append([]string{"vgcreate -s " + extent + " VG DISKS"}, g.commands(6)...)
	g.native("a", first)
	g.compare(g.commandsOf("b", first), g.fill())
	second := g.commands(5)
	g.native("b", second)
	g.compare(g.commandsOf("a", second), g.verify())
}

// images are the files of a group.
func (g *randomGroup) images(group string) (list []string) {
	for n := range g.disks {
		list = append(list, fmt.Sprintf("%s%d.img", group, n+1))
	}
	return list
}

// native runs commands by udm lvm.
func (g *randomGroup) native(group string, commands []string) {
	g.Helper()
	var script strings.Builder
	for _, c := range commands {
		c = strings.Replace(strings.TrimSuffix(c, " DISKS"), "VG", group, 1)
		fmt.Fprintf(&script, "$UDM lvm %s %s\n", c, strings.Join(g.images(group), " "))
	}
	g.do(script.String())
}

// commandsOf is a script that runs commands by lvm2.
func (g *randomGroup) commandsOf(group string, commands []string) string {
	var script, devices strings.Builder
	for i := range g.disks {
		fmt.Fprintf(&devices, " /dev/sd%s%c", group, 'a'+i)
	}
	for _, c := range commands {
		word, rest, _ := strings.Cut(strings.NewReplacer("VG", group, " DISKS", devices.String()).Replace(c), " ")
		fmt.Fprintf(&script, "%s -q -y %s\n", word, rest)
	}
	return script.String()
}

// fill is a script that writes to each volume, and remembers what.
func (g *randomGroup) fill() string {
	var b strings.Builder
	for _, v := range g.volumes {
		switch v.kind {
		case "pool":
			continue
		case "snapshot":
			g.content[v.name] = ""
			continue
		}
		g.content[v.name] = v.name
		fmt.Fprintf(&b, "printf %%-8s %s | dd of=/dev/mapper/VG-%s conv=notrunc,fsync 2>/dev/null\n", v.name, v.name)
	}
	return b.String()
}

// verify is a script that reads the volumes that were written to and are there still.
func (g *randomGroup) verify() string {
	var b strings.Builder
	for _, v := range g.volumes {
		if want := g.content[v.name]; want != "" {
			fmt.Fprintf(&b, "test \"$(head -c 8 /dev/mapper/VG-%s | tr -d '\\0 ')\" = %s || { echo %s is not %s; exit 1; }\n", v.name, want, v.name, want)
		}
	}
	return b.String()
}

// ask is a script that checks a group, runs a script with its volumes active, and prints
// what lvm2 says about it.
func (g *randomGroup) ask(group, active string) string {
	return strings.ReplaceAll(`vgck VG; for d in /dev/sdVG?; do pvck $d >/dev/null; done; vgchange -q -ay -K VG >/dev/null
`+active+`vgchange -q -an VG >/dev/null
lvs -a --noheadings -o lv_name,lv_size,lv_permissions,origin,pool_lv,data_lv,metadata_lv,transaction_id,lv_role VG | sort -u
vgs --noheadings -o pv_count,lv_count,snap_count,vg_extent_size,vg_extent_count,vg_free_count VG
`, "VG", group)
}

// compare lets lvm2 run commands, and a script on each group while its volumes are active.
// It fails unless lvm2 and udm see the same in both groups.
func (g *randomGroup) compare(commands, active string) {
	g.Helper()
	disks := ""
	for _, group := range []string{"a", "b"} {
		for i, f := range g.images(group) {
			disks += fmt.Sprintf(" --disk sd%s%c=%s", group, 'a'+i, f)
		}
	}
	script := "set -e\n" + commands + "echo ==\n" + g.ask("a", active) + "echo ==\n" + g.ask("b", active)
	parts := strings.Split(g.do("cat >script.sh <<'END'\n"+script+"END\n$UDM run --private --as-root"+disks+" -- sh script.sh 2>&1"), "==\n")
	if len(parts) != 3 || strings.TrimSpace(parts[1]) != strings.TrimSpace(parts[2]) {
		g.Fatalf("lvm2 sees\n%s", strings.Join(parts, "==\n"))
	}
	scan := func(group string) string {
		return g.do("$UDM lvm scan " + strings.Join(g.images(group), " ") + " | grep '^" + group + " ' | sed 's/^" + group + "//' | sort")
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
	v := &randomVolume{fmt.Sprintf("v%d", g.made), kind, below, size}
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
	switch g.rng.IntN(10) {
	case 0:
		v := g.newVolume("linear", "", size)
		return fmt.Sprintf("lvcreate -L %dM -n %s VG", size, v.name)
	case 1:
		if g.disks > 1 {
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
			g.content[v.name] = g.content[o.name]
			return fmt.Sprintf("lvcreate -s -n %s VG/%s", v.name, o.name)
		}
	case 6:
		if o := g.pick("linear", "striped"); o != nil {
			v := g.newVolume("snapshot", o.name, 2)
			g.content[v.name] = g.content[o.name]
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
			v.name, g.content[name] = name, g.content[old]
			return fmt.Sprintf("lvrename VG/%s %s", old, name)
		}
	}
	return ""
}
