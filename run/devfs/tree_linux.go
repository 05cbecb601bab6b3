package devfs

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// passed are the names of /dev that are the machine's own.
var passed = []string{"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue", "log", "fd", "stdin", "stdout", "stderr"}

// shadows are the paths that the tree has in place of the machine's, and the folders of
// the tree that have them. A path that ends in * stands for all that begin like it.
var shadows = []struct{ path, folder string }{
	{"/dev", "dev"},
	{"/sys/block", "sys/block"}, {"/sys/class/block", "sys/class/block"}, {"/sys/dev/block", "sys/dev/block"},
	{"/sys/devices/virtual/block", "sys/devices/virtual/block"}, {"/sys/module/dm_*", "sys/module/dm_*"},
	{"/proc/devices", "proc/devices"}, {"/proc/misc", "proc/misc"}, {"/proc/partitions", "proc/partitions"},
	{"/run/lvm", "var/run/lvm"}, {"/run/lock/lvm", "var/run/lock/lvm"}, {"/run/cryptsetup", "var/run/cryptsetup"}, {"/run/blkid", "var/run/blkid"},
	{"/run/dmeventd*", "var/run/dmeventd*"},
	{"/etc/lvm/archive", "var/etc/lvm/archive"}, {"/etc/lvm/backup", "var/etc/lvm/backup"},
	{"/etc/lvm/cache", "var/etc/lvm/cache"}, {"/etc/lvm/devices", "var/etc/lvm/devices"},
}

// aliases are links that machines have above the shadows.
var aliases = []struct{ from, to string }{{"/var/run/", "/run/"}, {"/var/lock/", "/run/lock/"}}

// maxLinks is how many links the kernel follows in one path.
const maxLinks = 40

// Tree is the tree of files. It is safe for concurrent use.
type Tree struct {
	dir string

	mu      sync.Mutex
	nodes   map[uint64]known  // guarded by mu; by inode
	written map[string]string // guarded by mu; contents by path in the tree
}

// New returns the tree in a folder, which it creates if needed. What programs have made
// there before is kept.
func New(dir string) (*Tree, error) {
	t := &Tree{dir: dir, nodes: make(map[uint64]known), written: make(map[string]string)}
	for _, s := range shadows {
		folder := filepath.Join(dir, s.folder)
		if s.folder == "proc/"+path.Base(s.path) || strings.HasSuffix(s.path, "*") {
			folder = filepath.Dir(folder)
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	for _, name := range passed {
		if err := t.showPassed(name); err != nil {
			return nil, err
		}
	}
	return t, os.MkdirAll(filepath.Join(dir, "dev/mapper"), 0o755)
}

// showPassed makes a name of the machine's /dev appear in listings.
func (t *Tree) showPassed(name string) error {
	at := filepath.Join(t.dir, "dev", name)
	st, err := os.Lstat("/dev/" + name)
	switch {
	case err != nil:
		return nil
	case st.Mode()&os.ModeSymlink != 0:
		var to string
		if to, err = os.Readlink("/dev/" + name); err == nil {
			err = os.Symlink(to, at)
		}
	case st.IsDir():
		err = os.Mkdir(at, 0o755)
	default:
		err = os.WriteFile(at, nil, 0o600)
	}
	if errors.Is(err, os.ErrExist) {
		err = nil
	}
	return err
}

// Dir is the folder of the tree.
func (t *Tree) Dir() string { return t.dir }

// Shown is the path under which programs know a file of the tree; any other path is
// returned as it is.
func (t *Tree) Shown(file string) string {
	rest, ok := strings.CutPrefix(file, t.dir+"/")
	if !ok {
		return file
	}
	for _, s := range shadows {
		if tail, ok := under(rest, s.folder); ok {
			return strings.TrimSuffix(s.path, "*") + tail
		}
	}
	return file
}

// under returns what of p is behind the prefix dir, a path of which p must be or lie
// under.
func under(p, dir string) (tail string, ok bool) {
	if begin, star := strings.CutSuffix(dir, "*"); star {
		return strings.CutPrefix(p, begin)
	}
	tail, ok = strings.CutPrefix(p, dir)
	return tail, ok && (tail == "" || tail[0] == '/')
}

// Resolve returns the file of the tree that an absolute, clean path means; "" for a path
// that is the machine's. Links are followed in all parts but the last, and in that, too,
// if follow is set.
func (t *Tree) Resolve(p string, follow bool) (file string, err error) {
	for range maxLinks {
		file, next := t.step(p, follow)
		if next == "" {
			return file, nil
		}
		p = next
	}
	return "", unix.ELOOP
}

// step resolves a path up to its first link; next is the path with that replaced, "" if
// there is none.
func (t *Tree) step(p string, follow bool) (file, next string) {
	for _, a := range aliases {
		if rest, ok := strings.CutPrefix(p, a.from); ok {
			p = a.to + rest
		}
	}
	for _, s := range shadows {
		tail, ok := under(p, s.path)
		switch {
		case !ok:
		case s.path == "/dev":
			return t.inDev(tail, follow)
		default:
			return filepath.Join(t.dir, strings.TrimSuffix(s.folder, "*")+tail), ""
		}
	}
	if !follow {
		return "", ""
	}
	// A link from elsewhere into /dev?
	if to, err := os.Readlink(p); err == nil && strings.HasPrefix(to, "/dev/") {
		return "", path.Clean(to)
	}
	return "", ""
}

// inDev resolves what is behind /dev.
func (t *Tree) inDev(tail string, follow bool) (file, next string) {
	parts := strings.Split(strings.TrimPrefix(tail, "/"), "/")
	for _, name := range passed {
		if parts[0] == name {
			return "", ""
		}
	}
	at := "/dev"
	for i, part := range parts {
		if part == "" {
			break
		}
		parent := at
		at += "/" + part
		if i == len(parts)-1 && !follow {
			break
		}
		to, err := os.Readlink(t.dir + at)
		if err != nil {
			continue
		}
		if !path.IsAbs(to) {
			to = parent + "/" + to
		}
		return "", path.Join(to, strings.Join(parts[i+1:], "/"))
	}
	return t.dir + at, ""
}

// Put writes a file of /proc or /sys, unless it has that content already.
func (t *Tree) Put(shown, content string) error {
	file, err := t.Resolve(shown, false)
	if err != nil {
		return err
	}
	t.mu.Lock()
	same := t.written[file] == content && content != ""
	t.written[file] = content
	t.mu.Unlock()
	if same {
		return nil
	}
	return replace(file, func(at string) error { return os.WriteFile(at, []byte(content), 0o444) })
}

// Link makes a link of /sys.
func (t *Tree) Link(shown, to string) error {
	file, err := t.Resolve(shown, false)
	if err != nil {
		return err
	}
	if now, err := os.Readlink(file); err == nil && now == to {
		return nil
	}
	return replace(file, func(at string) error { return os.Symlink(to, at) })
}

// Mkdir makes a folder of /sys, unless it is there.
func (t *Tree) Mkdir(shown string) error {
	file, err := t.Resolve(shown, false)
	if err != nil {
		return err
	}
	return os.MkdirAll(file, 0o755)
}

// Remove removes a file or folder with all in it.
func (t *Tree) Remove(shown string) error {
	file, err := t.Resolve(shown, false)
	if err != nil {
		return err
	}
	t.mu.Lock()
	for at := range t.written {
		if _, ok := under(at, file); ok {
			delete(t.written, at)
		}
	}
	t.mu.Unlock()
	return os.RemoveAll(file)
}

// Names lists a folder.
func (t *Tree) Names(shown string) []string {
	file, err := t.Resolve(shown, true)
	if err != nil {
		return nil
	}
	entries, _ := os.ReadDir(file) // none: empty
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// replace makes a file in place of another in one step.
func replace(file string, make func(at string) error) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	at := filepath.Join(filepath.Dir(file), ".new-"+filepath.Base(file))
	if err := make(at); err != nil {
		return err
	}
	return os.Rename(at, file)
}
