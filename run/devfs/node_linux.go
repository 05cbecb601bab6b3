package devfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"udm/blk"
)

// Node is a device node. In the tree it is a file with the text "b 254:3 660".
type Node struct {
	Char   bool
	Number blk.Number
	Mode   uint32 // permissions
}

// known is a node that was read; changed is the file's time then.
type known struct {
	node    Node
	changed unix.Timespec
}

func (n Node) String() string {
	kind := 'b'
	if n.Char {
		kind = 'c'
	}
	return fmt.Sprintf("%c %s %o", kind, n.Number, n.Mode)
}

func parseNode(text string) (n Node, ok bool) {
	var kind rune
	count, _ := fmt.Sscanf(text, "%c %d:%d %o", &kind, &n.Number.Major, &n.Number.Minor, &n.Mode)
	n.Char = kind == 'c'
	return n, count == 4
}

// SetNode makes a node at a path under /dev, in place of what is there.
func (t *Tree) SetNode(shown string, n Node) error {
	file, err := t.Resolve(shown, false)
	if err != nil {
		return err
	}
	return t.MakeNode(file, n)
}

// MakeNode is SetNode for a file of the tree.
func (t *Tree) MakeNode(file string, n Node) error {
	return replace(file, func(at string) error {
		if err := os.WriteFile(at, []byte(n.String()), 0o600); err != nil {
			return err
		}
		return t.forget(at)
	})
}

// forget forgets the node that had the inode of a new file: file systems give the number
// away again at once, and in kernels before 6.13 both may have the same time.
func (t *Tree) forget(file string) error {
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.nodes, st.Ino)
	return nil
}

// Node returns the node that a file of the tree is; st is the file's own.
func (t *Tree) Node(file string, st *unix.Stat_t) (Node, bool) {
	if _, ok := under(file, t.dir+"/dev"); !ok || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Node{}, false
	}
	t.mu.Lock()
	k, ok := t.nodes[st.Ino]
	t.mu.Unlock()
	if ok && k.changed == st.Ctim {
		return k.node, true
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return Node{}, false
	}
	n, ok := parseNode(string(text))
	if ok {
		t.mu.Lock()
		t.nodes[st.Ino] = known{n, st.Ctim}
		t.mu.Unlock()
	}
	return n, ok
}

// Lookup returns the node at a path of a program, following links.
func (t *Tree) Lookup(shown string) (Node, bool) {
	file, err := t.Resolve(shown, true)
	var st unix.Stat_t
	if err != nil || file == "" || unix.Lstat(file, &st) != nil {
		return Node{}, false
	}
	return t.Node(file, &st)
}

// devtmpfs is the device number of the file system on which nodes seem to be.
const devtmpfs = 5

// Stat makes st that of the node. It depends on the number alone: programs take two
// names for the same device if device and inode number are equal.
func (n Node) Stat(st *unix.Stat_t, uid uint32) {
	st.Mode = unix.S_IFBLK | n.Mode&0o7777
	st.Ino = 1<<40 | uint64(n.Number.Major)<<20 | uint64(n.Number.Minor)
	if n.Char {
		st.Mode, st.Ino = unix.S_IFCHR|n.Mode&0o7777, st.Ino|1<<41
	}
	st.Dev, st.Rdev, st.Nlink = devtmpfs, unix.Mkdev(n.Number.Major, n.Number.Minor), 1
	st.Uid, st.Gid = uid, diskGroup
	st.Size, st.Blocks, st.Blksize = 0, 0, 4096
}

// diskGroup is the group disk, as in most systems.
const diskGroup = 6
