//go:build unix

package edit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/filedev"
	"udm/blk/memdev"
	"udm/env"
	"udm/lvm"
	"udm/test/kernel"
)

// judge activates a group in the real kernel, with lvm2, and checks its pool, and the
// content of a volume. $1 and $2 are the disks.
const judge = `
judge() {
	C="devices{filter=[\"a|$1|\",\"a|$2|\",\"r|.*|\"]}"
	vgck --config "$C" vg
	vgchange -q -ay -K --config "$C" vg || {
		lvcreate -q -V 1M -n zz --thinpool p --config "$C" vg # sends the messages that the pool lacks
		vgchange -q -ay -K --config "$C" vg
	}
	test "$(dmsetup status vg-p-tpool | cut -d' ' -f4)" = "$(lvs --noheadings --config "$C" -o transaction_id vg/p | tr -d ' ')"
	test "$(head -c 9 /dev/mapper/vg-b)" = 'content b'
	lvs --noheadings --config "$C" -o lv_name vg | tr -d ' ' | sort | tr '\n' ' ' >>$OUT/volumes
	echo >>$OUT/volumes
}
check() {
	vgchange -q -an --config "$C" vg
	lvchange -q -y -ay --config "$C" vg/p_tmeta
	thin_check /dev/mapper/vg-p_tmeta
	vgchange -q -an --config "$C" vg
}
`

// lvm2 in the real kernel uses a group that was made here, and what power cuts left of it,
// changes it, and it can be used here again.
func TestKernelGroups(t *testing.T) {
	kernel.Need(t)
	start := newRig(t, 2)
	base(start)
	start.fillB()
	start = start.copied()

	rigs := []*rig{start}
	r := start.with(func(d blk.Device) blk.Device { return d.(*memdev.Device).Clone() })
	n := 0
	r.cuts(t, operations[5].change, func(cut *rig) { // one before the commit, one with messages
		pending := strings.Contains(cut.state(), " [{")
		if n++; n == 20 || pending && len(rigs) < 3 {
			rigs = append(rigs, cut)
		}
	})
	common, err := os.ReadFile("../testdata/common.sh")
	start.must(err)
	script := string(common) + judge
	var files []string
	for i, r := range rigs {
		for j, d := range r.disks {
			files = append(files, writeDisk(t, d.Device.(*memdev.Device)))
			rigs[i].disks[j].Name = files[len(files)-1]
		}
		script += fmt.Sprintf("judge $D%d $D%d\n", 2*i, 2*i+1)
		if i == 0 {
			script += `for c in "lvcreate -q -V 10M -n more --thinpool p vg" "lvextend -q -L +1M vg/c" "lvremove -q -y vg/ts"; do $c --config "$C"; done` + "\n"
		}
		script += "check\n"
	}
	result := kernel.Boot(t, kernel.Options{Disks: files, Modules: []string{"dm-mod", "dm-snapshot", "dm-thin-pool"}, Script: script})
	seen, err := os.ReadFile(filepath.Join(result.Dir, "volumes"))
	start.must(err)
	for line := range strings.Lines(string(seen)) {
		if line = strings.TrimSpace(line); line != "a b c p s t ts" && line != "a b c new of-new p s t ts zz" {
			t.Errorf("lvm2 sees %s", line)
		}
	}
	for i, r := range rigs {
		r = openFiles(t, r)
		r.settled()
		if g := r.sound(); i == 0 && (g.LV("more") == nil || g.LV("ts") != nil || g.LV("c").Extents() != 26) {
			t.Errorf("lvm2 left %s", layout(g.Group))
		}
		r.goesOn()
	}
}

// writeDisk writes a disk to a new file.
func writeDisk(t *testing.T, d *memdev.Device) string {
	path := filepath.Join(t.TempDir(), "disk")
	writeDiskTo(t, d, path)
	return path
}

// writeDiskTo leaves holes where there are only zeroes.
func writeDiskTo(t *testing.T, d *memdev.Device, path string) {
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(small * blk.SectorSize)
	}
	p, empty := make([]byte, 1<<16), make([]byte, 1<<16)
	for at := uint64(0); err == nil && at < small*blk.SectorSize; at += uint64(len(p)) {
		if err = blk.ReadSectors(env.Real(), d, p, at/blk.SectorSize); err == nil && !bytes.Equal(p, empty) {
			_, err = f.WriteAt(p, int64(at))
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// openFiles is a rig on the files that its disks are named after.
func openFiles(t *testing.T, r *rig) *rig {
	files := &rig{TB: t}
	for _, d := range r.disks {
		f, err := filedev.Open(d.Name, filedev.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files.disks = append(files.disks, lvm.Disk{Name: d.Name, Device: f})
	}
	return files
}
