//go:build unix

package edit

import (
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/test/kernel"
)

var kernelCuts = flag.Int("kernelcuts", 2, "number of states of each operation that TestKernelPowerCuts shows to lvm2")

// afterCut is what lvm2 does with the disks that a power cut left, and says about them. It
// runs thin_check before and after each use of a pool.
var afterCut = kernel.LVM("/dev/loop") + `all() { printf '#!/sbin/lvm\n%s\n' "$1" >commands; lvm commands; }
judge() (
	set -e
	vg=$(vgs --noheadings -o vg_name | tr -d ' ')
	[ -n "$vg" ] || exit 0
	all "vgck $vg
pvck /dev/loop0
pvck /dev/loop1"
	vgchange -q -ay -K $vg || {
		lvcreate -q -y -V 1M -n zz --thinpool p $vg # sends the messages that the pool lacks
		vgchange -q -ay -K $vg
	}
	lvs --noheadings -o lv_name,transaction_id -S seg_type=thin-pool $vg | while read -r pool id; do
		status=$(dmsetup status $vg-$pool-tpool 2>/dev/null || dmsetup status $vg-$pool)
		test "$(echo "$status" | cut -d' ' -f4)" = $id
	done
	[ ! -e /dev/mapper/$vg-b ] || test "$(head -c 9 /dev/mapper/$vg-b)" = 'content b'
	all "vgchange -q -an $vg
lvs --noheadings -o lv_name $vg" >said
	echo $vg $(grep -v -e ' active$' -e '\[' said | tr -d ' ' | sort) >&3
)
state() {
	for n in 0 1 2; do losetup /dev/loop$n $OUT/$1-$n; done
	judge >$OUT/$1.log 2>&1 3>$OUT/$1.said || echo "exit code $?" >>$OUT/$1.said
	dmsetup remove_all -f
	losetup -D
}
`

// TestKernelPowerCuts shows lvm2 in the real kernel what power cuts in each operation
// leave: it sees the group as before or as after, can activate all of it, and udm can
// change it on.
func TestKernelPowerCuts(t *testing.T) {
	kernel.Need(t)
	start := newRig(t, 3)
	base(start)
	start.fillB()
	empty := newRig(t, 3)
	made := empty.copied()
	empty.must(createGroup(made))
	dir := t.TempDir()
	script := afterCut
	var cuts []*keptCut
	keep := func(from *rig, name string, change func(*rig) error) {
		for _, c := range someCuts(t, from, name, change) {
			c.path = filepath.Join(dir, fmt.Sprint(len(cuts)))
			for n, d := range c.rig.disks {
				writeDiskTo(t, d.Device.(*memdev.Device), fmt.Sprintf("%s-%d", c.path, n))
			}
			script += fmt.Sprintf("state %d\n", len(cuts))
			cuts = append(cuts, c)
		}
	}
	for _, o := range operations {
		keep(start, o.name, o.change)
	}
	keep(empty, "create the group", createGroup)
	keep(made, "remove the group", func(r *rig) error { return RemoveGroup(env.Real(), r.scan()) })
	kernel.Boot(t, kernel.Options{Dir: dir, Modules: []string{"loop", "dm-mod", "dm-snapshot", "dm-thin-pool"}, Script: script})
	for _, c := range cuts {
		t.Run(filepath.Base(c.path)+" "+c.operation, c.check)
	}
}

// keptCut is what a power cut left.
type keptCut struct {
	operation     string
	rig           *rig
	before, after string // what lvm2 says
	path          string
}

// someCuts returns some of the different states after power cuts.
func someCuts(t *testing.T, from *rig, name string, change func(*rig) error) (list []*keptCut) {
	done := from.copied()
	done.must(change(done))
	before, after := from.names(), done.names()
	seen := map[[sha256.Size]byte]bool{}
	from.copied().cuts(t, change, func(cut *rig) {
		if sum := cut.sum(); !seen[sum] {
			seen[sum] = true
			list = append(list, &keptCut{operation: name, rig: cut, before: before, after: after})
		}
	})
	rng := rand.New(rand.NewPCG(uint64(len(list)), 16))
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), *kernelCuts)]
}

// check fails unless lvm2 saw one of the two states.
func (c *keptCut) check(t *testing.T) {
	said, err := os.ReadFile(c.path + ".said")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.TrimSuffix(strings.TrimSpace(string(said)), " zz")
	if got != c.before && got != c.after {
		log, _ := os.ReadFile(c.path + ".log")
		t.Errorf("lvm2 sees %q, want %q or %q\n%s", got, c.before, c.after, log)
	}
	for n := range c.rig.disks {
		c.rig.disks[n].Name = fmt.Sprintf("%s-%d", c.path, n)
	}
	if r := openFiles(t, c.rig); r.scan() != nil {
		r.state()
		r.goesOn()
	}
}

// copied is a copy of the disks, which have nothing in a cache.
func (r *rig) copied() *rig {
	return r.with(func(d blk.Device) blk.Device { return d.(*memdev.Device).CrashCloneAll() })
}

// sum tells disks of different content apart.
func (r *rig) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, d := range r.disks {
		for _, x := range blk.ExtentsOf(d.Device, 0, small) {
			if p := make([]byte, x.Sectors*blk.SectorSize); x.Data {
				r.must(blk.ReadSectors(env.Real(), d.Device, p, x.Sector))
				h.Write(binary.LittleEndian.AppendUint64(p, x.Sector))
			}
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// names are the group and its volumes as lvm2 lists them.
func (r *rig) names() string {
	a := r.scan()
	if a == nil {
		return ""
	}
	var list []string
	for _, l := range a.LVs {
		if l.Visible() {
			list = append(list, l.Name)
		}
	}
	slices.Sort(list)
	return strings.Join(append([]string{a.Name}, list...), " ")
}

// fillB writes the content of the volume b.
func (r *rig) fillB() {
	d, err := r.scan().Open(env.Real(), "b", true)
	r.must(err)
	_, err = blk.NewFile(env.Real(), d).WriteAt([]byte("content b"), 0)
	r.must(err)
	r.must(d.Close())
}
