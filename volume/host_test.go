package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
)

// errDead is the error of everything after the power went off or the process was
// killed.
var errDead = errors.New("dead")

// host is the machine below a manager: a file system with names that are durable
// once their directory was flushed, and files with a volatile cache. Everything
// that changes it is counted, and can be made to fail, or to be the last thing
// before a crash.
type host struct {
	names   map[string]*inode // as seen
	safe    map[string]*inode // as they survive
	changes []nameChange      // since then
	inodes  uint32
	clock   int64

	steps  int                  // changes so far
	breaks func(step int) error // makes a step fail; nil: none does
	dead   *host                // what a crash has left
	kill   bool                 // all survives a crash
	seed   uint64
	pause  func()       // before everything that changes it; nil: nothing
	broken string       // a file that cannot be read
	later  func(func()) // carries out I/O; nil: at once
}

type inode struct {
	number  uint32
	dir     bool
	dev     *memdev.Device // a file; nil: text
	size    uint64
	modTime int64
	text    []byte
	synced  []byte
}

type nameChange struct {
	name string
	node *inode
	gone string
}

func (c nameChange) apply(names map[string]*inode) {
	delete(names, c.gone)
	if c.node != nil {
		names[c.name] = c.node
	}
}

func newHost() *host {
	h := &host{names: map[string]*inode{}, safe: map[string]*inode{}}
	for _, dir := range []string{"/", "/udm", "/udm/stores", "/udm/pools", "/img"} {
		n := &inode{dir: true}
		h.names[dir], h.safe[dir] = n, n
	}
	return h
}

// step counts a change, and is asked before and after it.
func (h *host) step() error {
	if h.dead != nil {
		return errDead
	}
	h.steps++
	if h.breaks == nil {
		return nil
	}
	err := h.breaks(h.steps)
	if errors.Is(err, errDead) {
		h.dead = h.crash()
	}
	return err
}

func (h *host) change(c nameChange) error {
	if err := h.step(); err != nil {
		return err
	}
	c.apply(h.names)
	h.changes = append(h.changes, c)
	return nil
}

func (h *host) wait() {
	if h.pause != nil {
		h.pause()
	}
}

// crash is the host after it.
func (h *host) crash() *host {
	r := rand.New(rand.NewPCG(h.seed, 7))
	names := maps.Clone(h.safe)
	for _, c := range h.changes {
		if h.kill || r.IntN(2) == 0 {
			c.apply(names)
		}
	}
	after := &host{names: map[string]*inode{}, safe: map[string]*inode{}, inodes: h.inodes, clock: h.clock + 1}
	copies := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := names[name]
		if copies[n] == nil {
			copies[n] = n.remains(h.kill, r)
		}
		after.names[name], after.safe[name] = copies[n], copies[n]
	}
	return after
}

func (n *inode) remains(all bool, r *rand.Rand) *inode {
	c := *n
	switch {
	case n.dev != nil && all:
		c.dev = n.dev.CrashCloneAll()
	case n.dev != nil:
		c.dev = n.dev.CrashClone(r.Uint64())
	case all:
		c.synced = n.text
	default:
		c.text = n.synced
		if !slices.Equal(n.text, n.synced) && r.IntN(2) == 0 {
			c.text = n.text[:r.IntN(len(n.text)+1)]
		}
	}
	return &c
}

// clone is the host as it is, for another history.
func (h *host) clone() *host {
	kill := h.kill
	h.kill = true
	c := h.crash()
	h.kill = kill
	return c
}

func (h *host) syncDir(dir string) error {
	if err := h.step(); err != nil {
		return err
	}
	h.changes = slices.DeleteFunc(h.changes, func(c nameChange) bool {
		in := c.node != nil && path.Dir(c.name) == dir || c.gone != "" && path.Dir(c.gone) == dir
		if in {
			c.apply(h.safe)
		}
		return in
	})
	return nil
}

// hostFS is the host for the journal: see [hostfs.FS].
type hostFS struct{ *host }

func (h hostFS) ReadDir(dir string) (names []string, err error) {
	if h.names[dir] == nil {
		return nil, fs.ErrNotExist
	}
	for name := range h.names {
		if path.Dir(name) == dir && name != dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (h hostFS) ReadFile(name string) ([]byte, error) {
	if h.names[name] == nil {
		return nil, fs.ErrNotExist
	}
	return h.names[name].text, nil
}

func (h hostFS) Create(name string) (hostfs.File, error) {
	h.wait()
	n := &inode{}
	return &textFile{h.host, n}, h.change(nameChange{name: name, node: n})
}

func (h hostFS) Rename(from, to string) error {
	h.wait()
	n := h.names[from]
	if n == nil {
		return fs.ErrNotExist
	}
	return h.change(nameChange{name: to, node: n, gone: from})
}

func (h hostFS) Remove(name string) error {
	h.wait()
	if h.names[name] == nil {
		return fs.ErrNotExist
	}
	return h.change(nameChange{gone: name})
}

func (h hostFS) Mkdir(dir string) error {
	if h.names[dir] != nil {
		return fs.ErrExist
	}
	return h.change(nameChange{name: dir, node: &inode{dir: true}})
}

func (h hostFS) SyncDir(dir string) error {
	h.wait()
	return h.syncDir(dir)
}

type textFile struct {
	h *host
	n *inode
}

func (f *textFile) Write(p []byte) (int, error) {
	if err := f.h.step(); err != nil {
		return 0, err
	}
	f.n.text = append(f.n.text, p...)
	return len(p), nil
}

func (f *textFile) Sync() error {
	if err := f.h.step(); err != nil {
		return err
	}
	f.n.synced = slices.Clone(f.n.text)
	return nil
}

func (f *textFile) Close() error { return nil }

// hostFiles is the host for the manager: see [Files].
type hostFiles struct {
	*host
	e env.Env
}

func (h hostFiles) Make(fs []File) error {
	h.wait()
	dirs := map[string]bool{}
	for _, f := range fs {
		if h.names[f.Path] != nil {
			return fmt.Errorf("%s: %w", f.Path, syscall.EEXIST)
		}
		if h.names[path.Dir(f.Path)] == nil {
			if err := hostfs.MakeDir(hostFS{h.host}, path.Dir(f.Path)); err != nil {
				return err
			}
		}
		if err := h.change(nameChange{name: f.Path, node: h.newInode(f)}); err != nil {
			return err
		}
		dirs[path.Dir(f.Path)] = true
	}
	return h.syncDirs(dirs)
}

func (h hostFiles) newInode(f File) *inode {
	h.inodes++
	h.clock++
	n := &inode{number: h.inodes, dev: memdev.New(f.Size/blk.SectorSize, memdev.Volatile), size: f.Size, modTime: h.clock}
	if len(f.Text) > 0 {
		p := make([]byte, (len(f.Text)+511)/512*512)
		copy(p, f.Text)
		if err := blk.WriteSectors(h.e, n.dev, p, 0, blk.FUA); err != nil {
			panic(err)
		}
	}
	return n
}

func (h hostFiles) syncDirs(dirs map[string]bool) error {
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := h.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (h hostFiles) Link(names []Names) error {
	h.wait()
	dirs := map[string]bool{}
	for _, n := range names {
		if h.names[n.To] != nil && h.names[n.To] != h.names[n.From] {
			return fmt.Errorf("%s: %w", n.To, syscall.EEXIST)
		}
		if h.names[n.From] == nil {
			return fmt.Errorf("%s: %w", n.From, syscall.ENOENT)
		}
		if err := h.change(nameChange{name: n.To, node: h.names[n.From]}); err != nil {
			return err
		}
		dirs[path.Dir(n.To)] = true
	}
	return h.syncDirs(dirs)
}

func (h hostFiles) Remove(paths []string) error {
	h.wait()
	dirs := map[string]bool{}
	for _, p := range paths {
		dirs[path.Dir(p)] = true
		if h.names[p] == nil {
			continue
		}
		if err := h.change(nameChange{gone: p}); err != nil {
			return err
		}
	}
	return h.syncDirs(dirs)
}

func (h hostFiles) Resize(name string, size uint64, _ bool) error {
	h.wait()
	if err := h.step(); err != nil {
		return err
	}
	n := h.names[name]
	if n == nil {
		return syscall.ENOENT
	}
	n.size = size
	n.dev.Resize(size / blk.SectorSize)
	return h.step()
}

func (h hostFiles) Same(a, b string) bool {
	return h.names[a] != nil && h.names[a] == h.names[b]
}

func (h hostFiles) Stat(name string) (Stat, error) {
	n := h.names[name]
	if n == nil || n.dev == nil {
		return Stat{}, fmt.Errorf("%s: %w", name, syscall.ENOENT)
	}
	return Stat{Size: n.size, Allocated: h.allocated(n), ModTime: n.modTime}, nil
}

func (h hostFiles) allocated(n *inode) (bytes uint64) {
	for _, e := range blk.ExtentsOf(n.dev, 0, n.size/blk.SectorSize) {
		if e.Data {
			bytes += e.Sectors * blk.SectorSize
		}
	}
	return bytes
}

func (h hostFiles) List(dir string) (names []string, err error) {
	names, _ = hostFS{h.host}.ReadDir(dir)
	return names, nil
}

func (h hostFiles) Open(name string, write bool) (blk.Device, error) {
	n := h.names[name]
	if n == nil || n.dev == nil {
		return nil, fmt.Errorf("%s: %w", name, syscall.ENOENT)
	}
	return keepOpen{n.dev, h.host, name}, nil
}

func (h hostFiles) ReadTail(name string) ([]byte, error) {
	n := h.names[name]
	return n.text[:n.size%blk.SectorSize], nil
}

// keepOpen is an open of a file.
type keepOpen struct {
	*memdev.Device
	h    *host
	name string
}

func (k keepOpen) Submit(b *blk.Bio) {
	if b.Op == blk.Read && k.name == k.h.broken {
		b.Complete(blk.IOErr)
		return
	}
	if k.h.later != nil {
		k.h.later(func() { k.Device.Submit(b) })
		return
	}
	k.Device.Submit(b)
}

func (k keepOpen) Close() error { return nil }

// opener opens the host's files for tables.
type opener struct{ *host }

func (o opener) Open(name string, write bool) (blk.Device, dm.Number, error) {
	n := o.names[name]
	if n == nil || n.dev == nil {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "%s: no such device", name)
	}
	return keepOpen{n.dev, o.host, name}, dm.Number{Major: 7, Minor: n.number}, nil
}

// files lists the files that are no part of the saved state.
func (h *host) files() (names []string) {
	for name, n := range h.names {
		if n.dev != nil && !strings.HasPrefix(name, "/img/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
