//go:build linux && (amd64 || arm64)

package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/ctl"
	"udm/run/devfs"
	"udm/run/notify"
)

// session is a run.
type session struct {
	service  ctl.Service
	root     string // of the daemon
	listener *notify.Listener
	handlers map[uint32]handler
	tree     *devfs.Tree
	treeDev  uint64
	disks    disks
	major    uint32
	asRoot   bool
	uid      uint32 // owner of nodes

	devices    *devices
	opened     opened
	controls   controls
	readAheads readAheads

	claiming sync.Mutex
	claims   map[blk.Number]bool // guarded by claiming; devices that a program may have claimed

	showing   sync.Mutex
	shownList []ctl.Device // guarded by showing; what /sys has

	params   params
	devFiles bool // whether programs make ordinary files in /dev

	working sync.WaitGroup // calls that wait
}

// diskMajor is the major number of disks; lvm accepts disks with it.
const diskMajor = 7

// newSession prepares a run: the daemon's files, the disks, the tree.
func newSession(ctx context.Context, service ctl.Service, cfg Config) (*session, error) {
	root, err := filepath.EvalSymlinks(cfg.Root)
	if err != nil {
		return nil, err
	}
	tree, err := devfs.New(filepath.Join(root, "run"))
	if err != nil {
		return nil, err
	}
	s := &session{root: root, tree: tree, handlers: handlers(cfg.AsRoot), major: cfg.Major, asRoot: cfg.AsRoot, uid: uint32(os.Getuid()),
		claims: make(map[blk.Number]bool), opened: opened{numbers: make(map[identity]blk.Number)},
		params: params{names: make(map[string]string), written: make(map[string]bool)}, devFiles: cfg.DevFiles,
		controls: controls{pipes: make(map[identity]int)}, readAheads: readAheads{sectors: make(map[blk.Number]uint64)}}
	if cfg.AsRoot {
		s.uid = 0
	}
	if s.major == 0 {
		s.major = freeMajor()
	}
	s.service = renumber(service, s.major)
	s.devices = &devices{service: s.service}
	return s, s.prepare(ctx, cfg.Disks)
}

func (s *session) prepare(ctx context.Context, disks []Disk) error {
	var st unix.Stat_t
	if err := unix.Stat(s.tree.Dir(), &st); err != nil {
		return err
	}
	s.treeDev = st.Dev
	if err := s.service.Mount(ctx, ctl.Mount{Numbered: true}); err != nil {
		return fmt.Errorf("programs need the devices as files: %w", err)
	}
	var fs unix.Statfs_t
	dir := filepath.Join(s.root, ctl.NumberedDir)
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.FUSE_SUPER_MAGIC {
		return fmt.Errorf("the daemon's files at %s cannot be seen here; run this where the daemon runs (the same container), or with --private", dir)
	}
	for _, d := range disks {
		if err := s.addDisk(ctx, d); err != nil {
			return err
		}
	}
	return errors.Join(s.showMajors(), s.showNodes(s.devices.all()), s.showParams(ctx))
}

// addDisk registers a disk, so that it has the same number for the daemon.
func (s *session) addDisk(ctx context.Context, d Disk) error {
	known, err := s.service.Disks(ctx)
	if err != nil {
		return err
	}
	taken := make(map[ctl.Number]bool)
	for _, k := range known {
		taken[k.Number] = true
		if k.Path == d.Path {
			s.disks = append(s.disks, &disk{d, blk.Number(k.Number), d.Path})
			return nil
		}
	}
	n := ctl.Number{Major: diskMajor}
	for taken[n] || inUse(n) {
		n.Minor++
	}
	if err := s.service.RegisterDisk(ctx, ctl.Disk{Number: n, Path: d.Path}); err != nil {
		return fmt.Errorf("--disk %s: %w", d.Name, err)
	}
	s.disks = append(s.disks, &disk{d, blk.Number(n), d.Path})
	return nil
}

// inUse reports whether the machine has a block device with a number: programs such as
// mkfs.xfs compare numbers with those of mounted file systems.
func inUse(n ctl.Number) bool {
	_, err := os.Lstat("/sys/dev/block/" + n.String())
	return err == nil
}

// failed reports that something for programs is not as it should be.
func (s *session) failed(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "udm run: %s is not up to date: %v\n", what, err)
	}
}

// serve answers calls until all programs have ended.
func (s *session) serve() {
	for c := s.listener.Receive(); c != nil; c = s.listener.Receive() {
		s.passOnParams()
		s.finish(c, s.handlers[uint32(c.NR)](s, c))
	}
}
