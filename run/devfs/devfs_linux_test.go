package devfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
)

func newTree(t *testing.T) *Tree {
	t.Helper()
	tree, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	tree := newTree(t)
	must(t, os.Mkdir(tree.Dir()+"/dev/vg", 0o755))
	must(t, os.Symlink("/dev/mapper/vg-lv", tree.Dir()+"/dev/vg/lv"))
	must(t, os.Symlink("vg", tree.Dir()+"/dev/alias"))
	must(t, os.Symlink("loop2", tree.Dir()+"/dev/loop1"))
	must(t, os.Symlink("loop1", tree.Dir()+"/dev/loop2"))
	outside := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink("/dev/vg/lv", outside))
	for _, c := range []struct {
		path   string
		follow bool
		want   string
	}{
		{"/dev", true, "dev"},
		{"/dev/sda", true, "dev/sda"},
		{"/dev/vg/lv", true, "dev/mapper/vg-lv"},
		{"/dev/vg/lv", false, "dev/vg/lv"},
		{"/dev/alias/lv", false, "dev/vg/lv"},
		{"/dev/alias/lv", true, "dev/mapper/vg-lv"},
		{outside, true, "dev/mapper/vg-lv"},
		{outside, false, ""},
		{"/dev/null", true, ""},
		{"/dev/pts/0", true, ""},
		{"/dev/nullx", true, "dev/nullx"},
		{"/device", true, ""},
		{"/sys/dev/block/7:0/size", true, "sys/dev/block/7:0/size"},
		{"/sys/blocks", true, ""},
		{"/sys/devices/system", true, ""},
		{"/proc/partitions", true, "proc/partitions"},
		{"/proc/partitionsx", true, ""},
		{"/run/lvm/hints", true, "var/run/lvm/hints"},
		{"/var/run/lvm/hints", true, "var/run/lvm/hints"},
		{"/var/lock/lvm/V_vg", true, "var/run/lock/lvm/V_vg"},
		{"/run/dmeventd.pid", true, "var/run/dmeventd.pid"},
		{"/etc/lvm/lvm.conf", true, ""},
		{"/etc/lvm/backup/vg", true, "var/etc/lvm/backup/vg"},
		{"/home/user", true, ""},
	} {
		got, err := tree.Resolve(c.path, c.follow)
		want := c.want
		if want != "" {
			want = filepath.Join(tree.Dir(), want)
		}
		if err != nil || got != want {
			t.Errorf("%s, follow %v: %q, %v, want %q", c.path, c.follow, got, err, want)
		}
	}
	if _, err := tree.Resolve("/dev/loop1", true); !errors.Is(err, unix.ELOOP) {
		t.Errorf("links in a circle: %v", err)
	}
}

// A file of the tree is shown under the path that leads to it.
func TestShown(t *testing.T) {
	tree := newTree(t)
	for _, p := range []string{"/dev", "/dev/vg/lv", "/sys/devices/virtual/block/dm-0/queue", "/run/lock/lvm/x", "/run/dmeventd-client", "/etc/lvm/archive/a.vg"} {
		file, err := tree.Resolve(p, false)
		if err != nil || tree.Shown(file) != p {
			t.Errorf("%s is shown as %s, %v", p, tree.Shown(file), err)
		}
	}
	for _, p := range []string{"/home", tree.Dir() + "x/dev"} {
		if tree.Shown(p) != p {
			t.Errorf("%s is shown as %s", p, tree.Shown(p))
		}
	}
}

// A node stays the same node under another name, and is another after it was replaced.
func TestNodes(t *testing.T) {
	tree := newTree(t)
	want := Node{Number: blk.Number{Major: 254, Minor: 300}, Mode: 0o660}
	must(t, tree.SetNode("/dev/a", want))
	dev := tree.Dir() + "/dev/"
	must(t, os.Link(dev+"a", dev+"b"))
	must(t, os.Rename(dev+"a", dev+"c"))
	for _, name := range []string{"b", "c"} {
		if n, ok := tree.Lookup("/dev/" + name); !ok || n != want {
			t.Errorf("%s is %v, %v", name, n, ok)
		}
	}
	want.Number.Minor, want.Char = 301, true
	must(t, tree.SetNode("/dev/c", want))
	if n, ok := tree.Lookup("/dev/c"); !ok || n != want {
		t.Errorf("c is %v, %v after it was replaced", n, ok)
	}
	for _, name := range []string{"/dev/a", "/dev/null", "/dev/mapper", "/etc/passwd"} {
		if n, ok := tree.Lookup(name); ok {
			t.Errorf("%s is %v", name, n)
		}
	}
}

// A new node is not taken for the one that had its inode before: here the new file is
// written over that of the old one.
func TestInodeOfAnotherNode(t *testing.T) {
	tree := newTree(t)
	must(t, tree.SetNode("/dev/a", Node{Number: blk.Number{Major: 254, Minor: 1}}))
	tree.Lookup("/dev/a")
	var st unix.Stat_t
	must(t, unix.Lstat(tree.Dir()+"/dev/a", &st))
	must(t, os.Rename(tree.Dir()+"/dev/a", tree.Dir()+"/dev/.new-b"))
	must(t, tree.SetNode("/dev/b", Node{Number: blk.Number{Major: 254, Minor: 2}}))
	if n, known := tree.nodes[st.Ino]; known {
		t.Errorf("the inode of b is known as %v", n.node)
	}
}

// Stat depends on the number alone.
func TestNodeStat(t *testing.T) {
	stat := func(n Node) (st unix.Stat_t) {
		st.Size, st.Ino = 99, 99
		n.Stat(&st, 7)
		return st
	}
	a, b := stat(Node{Number: blk.Number{Major: 7, Minor: 1}}), stat(Node{Number: blk.Number{Major: 7, Minor: 1}})
	c, d := stat(Node{Number: blk.Number{Major: 7, Minor: 2}}), stat(Node{Number: blk.Number{Major: 7, Minor: 1}, Char: true})
	if a != b || a.Ino == c.Ino || a.Ino == d.Ino || a.Mode&unix.S_IFMT != unix.S_IFBLK || d.Mode&unix.S_IFMT != unix.S_IFCHR {
		t.Errorf("%+v\n%+v\n%+v\n%+v", a, b, c, d)
	}
	if unix.Major(a.Rdev) != 7 || unix.Minor(a.Rdev) != 1 || a.Uid != 7 || a.Size != 0 {
		t.Errorf("%+v", a)
	}
}

func TestPut(t *testing.T) {
	tree := newTree(t)
	const size = "/sys/devices/virtual/block/dm-0/size"
	must(t, tree.Put(size, "8\n"))
	must(t, tree.Link("/sys/dev/block/254:0", "../../devices/virtual/block/dm-0"))
	must(t, tree.Link("/sys/dev/block/254:0", "../../devices/virtual/block/dm-0"))
	if b, err := os.ReadFile(tree.Dir() + "/sys/dev/block/254:0/size"); err != nil || string(b) != "8\n" {
		t.Errorf("%q, %v", b, err)
	}
	must(t, tree.Remove("/sys/devices/virtual/block/dm-0"))
	must(t, tree.Put(size, "8\n"))
	if b, err := os.ReadFile(tree.Dir() + size); err != nil || string(b) != "8\n" {
		t.Errorf("after it was removed: %q, %v", b, err)
	}
}
