package leaf

import (
	"path/filepath"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// scheme is a kind of names for disks.
type scheme struct {
	prefix string // what its names begin with; "" for absolute paths
	syntax string // the form of its names, for help texts
	doc    string // what such a disk is
	major  uint32 // of the numbers that disks without their own get
	// parse returns the disk with a name; rest is the name without the prefix. It
	// opens nothing. Its error has an errno; see openError.
	parse func(name, rest string) (source, error)
}

// schemes returns all kinds of names. A new kind of leaf is another entry.
func schemes() []scheme {
	return []scheme{
		{"", "/PATH", "a file or a block device, by its absolute path", LoopMajor, parsePath},
		{"direct:", "direct:/PATH", "a file or block device past the page cache, by io_uring where there is one", LoopMajor, parseDirect},
		{"mem:", "mem:SIZE[:NAME]", "a disk in memory, which lasts until it is closed", RAMMajor, parseMemory},
		{"null:", "null:SIZE[:NAME]", "a disk that stores nothing and reads as zeroes", RAMMajor, parseNull},
		{"nbd", "nbd:URI", "a disk at an NBD server; its URI alone will do: nbd://HOST/EXPORT", NBDMajor, parseNBD},
		{"rbd:", "rbd:POOL/IMAGE", "an image of a Ceph cluster; with @SNAP a snapshot of it, read-only", NBDMajor, parseRBD},
		{"qcow2:", "qcow2:/PATH", "the disk in a qcow2 image and its backing files, read-only", LoopMajor, parseQcow2},
		{"http", "https://…", "an object at a web server, read by ranges, read-only", NBDMajor, parseHTTP},
		{"archive:", "archive:SNAP:STORE", "a snapshot in an archive (udm archive), read-only", NBDMajor, parseArchive},
		{"part:", "part:N:…", "partition N of any of these, by its GPT or MBR", LoopMajor, parsePartition},
		{"block=", "block=BYTES:…", "any of these, with logical blocks of at least BYTES", 0, parseBlock},
	}
}

// Syntax lists the forms of names that an Opener knows, except numbers, for help texts
// and errors: "/PATH, mem:SIZE[:NAME] …".
func Syntax() string {
	var all []string
	for _, s := range schemes() {
		all = append(all, s.syntax)
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " or " + all[last]
}

// Help explains each form of names in one line.
func Help() string {
	var b strings.Builder
	for _, s := range schemes() {
		b.WriteString("  " + s.syntax + strings.Repeat(" ", max(0, 18-len([]rune(s.syntax)))) + " " + s.doc + "\n")
	}
	return b.String()
}

// cut reports whether a name is of the scheme, and returns the rest after the prefix.
func (s *scheme) cut(name string) (rest string, ok bool) {
	if s.prefix == "" {
		return name, filepath.IsAbs(name)
	}
	return strings.CutPrefix(name, s.prefix)
}

// source is a disk that was found by its name, and how to open it.
type source struct {
	name   string     // its name in tables
	id     identity   // the same for all names of the disk
	major  uint32     // of the number that it gets
	number blk.Number // its own; zero: it has none
	shared bool       // readers and writers share one device
	block  uint32     // smallest logical block in bytes; at least 512
	direct bool       // past the page cache
	open   func(o *Opener, write bool) (blk.Device, error)
}

// identity identifies a disk.
type identity struct {
	scheme   string // prefix
	dev, ino uint64 // of a file; of a block device dev alone, its number
	name     string // of a disk that is not a file, and of a file on systems without inodes
}

// resolve finds the disk that a table names. It opens nothing.
func resolve(name string) (source, error) {
	for _, s := range schemes() {
		rest, ok := s.cut(name)
		if !ok {
			continue
		}
		src, err := s.parse(name, rest)
		src.name, src.block = name, max(src.block, blk.SectorSize)
		if src.major == 0 { // else a disk of another scheme
			src.major, src.id.scheme = s.major, s.prefix
		}
		return src, err
	}
	if name == "" {
		return source{}, dm.Errorf(syscall.ENXIO, "there is no device with that number")
	}
	return source{}, dm.Errorf(syscall.ENODEV, "%s: not an absolute path", name)
}
