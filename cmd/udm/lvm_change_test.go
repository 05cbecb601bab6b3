package main

import (
	"os"
	"strings"
	"testing"
)

// lvmRig is a place for udm lvm with empty disks, without a daemon.
func lvmRig(t *testing.T, disks ...string) *commands {
	c := &commands{t, "lvm", t.TempDir()}
	t.Setenv("UDM_ROOT", c.path("root"))
	for _, name := range disks {
		c.write(name, nil)
		if err := os.Truncate(c.path(name), 64<<20); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestLVMChange(t *testing.T) {
	c := lvmRig(t, "a", "b")
	for _, line := range []string{
		"vgcreate -s 1M vg @a",
		"vgextend vg @a @b",
		"lvcreate -L 10 -n root vg @a @b",
		"lvcreate -l 10 -i 2 -I 16K -n wide --addtag fast vg @a @b",
		"lvcreate -T -L 20M --poolmetadatasize 2M vg/pool @a @b",
		"lvcreate -V 1G -n thin -T vg/pool @a @b",
		"lvcreate -s -n before vg/thin @a @b",
		"lvcreate -s -L 2M -n old vg/root @a @b",
		"lvextend -L +1G vg/thin @a @b",
		"lvreduce -f -l -4 vg/wide @a @b",
		"lvresize -l +100%FREE vg/pool @a @b",
		"lvrename vg/pool tank @a @b",
		"lvremove vg/thin @a @b",
		"vgrename vg server @a @b",
	} {
		c.must(line)
	}
	got := c.must("scan @a @b")
	_, got, _ = strings.Cut(got, "\n\n")
	if want := `GROUP   VOLUME  SIZE  TYPE       ORIGIN  POOL
server  root    10M   linear
server  wide    6M    striped
server  tank    104M  thin-pool
server  before  1G    thin               tank
server  old     10M   snapshot   root
`; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, line := range []string{"lvremove server/before @a @b", "lvremove server/tank @a @b", "lvremove server/old @a @b", "lvremove server/root @a @b", "lvremove server/wide @a @b", "vgremove server @a @b", "vgcreate again @a @b"} {
		c.must(line)
	}
}

func TestLVMRefuses(t *testing.T) {
	c := lvmRig(t, "a", "b", "used")
	p := make([]byte, 64<<20)
	p[len(p)-1] = 1
	c.write("used", p)
	c.must("vgcreate vg @a @b")
	c.must("lvcreate -L 8M -n root vg @a @b")
	c.must("lvcreate -s -L 4M -n snap vg/root @a @b")
	for line, want := range map[string]string{
		"vgcreate other @used":                     "not empty: something is in its first or last MiB; use another disk, or --force if nothing on this one is needed",
		"vgcreate other @a":                        "it belongs to the group vg",
		"vgcreate -s 3K other @a":                  "must be a power of two",
		"vgcreate .. @used":                        "cannot be the name of a volume group",
		"vgextend vg @a @b":                        "in a group already",
		"vgextend vg @a @b @used":                  "not empty",
		"vgremove vg @a @b":                        "still has volumes: root, snap",
		"lvcreate -L 4M -n x vg @a":                "a disk of the group vg is missing: pv1",
		"lvcreate -L 4M -n x none @a @b":           "there is no group none on the disks, only vg",
		"lvcreate -L 1G -n x vg @a @b":             "256 extents are needed, and 27 are free in the group vg",
		"lvcreate -L 4M -n root vg @a @b":          "has a volume root already",
		"lvcreate -L 4M -n x_tdata vg @a @b":       "LVM keeps names with _tdata for itself",
		"lvcreate -L 4M vg @a @b":                  "--name is missing",
		"lvcreate -n x vg @a @b":                   "--size is missing",
		"lvcreate -i 3 -l 3 -n x vg @a @b":         "3 extents are needed, on 3 disks at once, and 27 are free",
		"lvcreate -V 1G -n x -T vg/root @a @b":     "root is of type linear, not a thin pool",
		"lvcreate -s -n x vg/root @a @b":           "a snapshot of it needs a size",
		"lvcreate --type raid1 -L 1 -n x vg @a @b": "volumes of type raid1 cannot be created",
		"lvextend -L +4M vg/root @a @b":            "root has snapshots",
		"lvextend -L 4M vg/snap @a @b":             "snap has that size already",
		"lvreduce -l 1 vg/root @a @b":              "would lose its end",
		"lvremove vg/root @a @b":                   "root is needed by snap",
		"lvrename vg/none x @a @b":                 `has no volume "none"`,
	} {
		c.fails(line, want)
	}
	c.must("vgextend --force vg @a @b @used")
}
