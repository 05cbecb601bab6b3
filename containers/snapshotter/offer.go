package snapshotter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"

	"udm/containers/filesystem"
	"udm/ctl"
)

// Labels with which the caller of Prepare chooses. containerd passes labels with this
// prefix to snapshotters.
const (
	fsLabel    = "containerd.io/snapshot/udm.fs"
	offerLabel = "containerd.io/snapshot/udm.offer"
	imageLabel = "containerd.io/snapshot/udm.image" // path of the image that a snapshot without a parent is a clone of
)

// Offer is the form in which a snapshot is given to whoever mounts it.
type Offer string

// The forms.
const (
	// Loop is the daemon's FUSE file, with the option loop: whoever mounts it makes a loop
	// device.
	Loop Offer = "loop"
	// Block is a block device that the daemon attaches: ublk, loop or nbd.
	Block Offer = "block"
	// File is the FUSE file as it is, for virtual machines: Kata, Firecracker.
	File Offer = "file"
	// VhostUser is a vhost-user-blk socket, for virtual machines.
	VhostUser Offer = "vhost-user"
)

// ParseOffer returns the form with a name; "" is Loop.
func ParseOffer(name string) (Offer, error) {
	switch o := Offer(name); o {
	case "":
		return Loop, nil
	case Loop, Block, File, VhostUser:
		return o, nil
	}
	return "", fmt.Errorf("a snapshot cannot be offered as %q; use loop, block, file or vhost-user", name)
}

// mounts offers a snapshot.
func (s *Snapshotter) mounts(ctx context.Context, r record) ([]mount.Mount, error) {
	source, err := s.source(ctx, r)
	if err != nil {
		return nil, inWords(err)
	}
	m := mount.Mount{Type: r.FS, Source: source, Options: filesystem.Type(r.FS).Options()}
	if r.kind() == snapshots.KindView || r.FS == string(filesystem.Erofs) {
		m.Options = append(m.Options, "ro")
	} else {
		m.Options = append(m.Options, "rw", "discard")
	}
	if r.Offer == Loop {
		m.Options = append(m.Options, "loop")
	}
	return []mount.Mount{m}, nil
}

func (s *Snapshotter) source(ctx context.Context, r record) (string, error) {
	if r.kind() == snapshots.KindView {
		if err := s.replay(ctx, r); err != nil {
			return "", err
		}
	}
	ref := ctl.Ref{Name: r.volume}
	switch r.Offer {
	case Block:
		a, err := s.client.Attach(ctx, ctl.Attach{Ref: ref})
		return a.Path, err
	case VhostUser:
		x, err := s.client.Export(ctx, ctl.Export{Ref: ref, Path: s.socket(r)})
		return x.Path, err
	}
	return s.file(ctx, r.volume)
}

func (s *Snapshotter) socket(r record) string {
	return filepath.Join(filepath.Dir(s.Files), r.volume+".sock")
}

// withdraw ends what source began. Nothing was begun for files.
func (s *Snapshotter) withdraw(ctx context.Context, r record) (err error) {
	switch r.Offer {
	case Block:
		err = s.client.Detach(ctx, ctl.Ref{Name: r.volume})
	case VhostUser:
		err = s.client.Unexport(ctx, ctl.Unexport{Path: s.socket(r)})
	}
	if errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV) {
		return nil // it was not there
	}
	return err
}

// file is the file of a volume. A daemon that was killed has lost the directory, and the
// next one shows it again when asked.
func (s *Snapshotter) file(ctx context.Context, name string) (string, error) {
	path := filepath.Join(s.Files, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(s.Files, 0o700); err != nil && !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if err := s.client.Mount(ctx, ctl.Mount{Dir: s.Files}); err != nil {
		return "", err
	}
	_, err := os.Stat(path)
	return path, err
}

// replay writes the journal of a view's file system back, if it was committed while it
// was mounted: a read-only mount cannot. The view is a clone that nobody else has.
func (s *Snapshotter) replay(ctx context.Context, r record) error {
	if r.FS != string(filesystem.Ext4) {
		return nil
	}
	path, err := s.file(ctx, r.volume)
	if err != nil {
		return err
	}
	dirty, err := needsReplay(path)
	if err != nil || !dirty {
		return err
	}
	return filesystem.Ext4.Replay(ctx, path)
}

// The superblock of ext4 and its feature that says that there is a journal to be
// written back.
const (
	superblockAt   = 1024
	incompatAt     = 0x60
	incompatReplay = 0x4
)

func needsReplay(path string) (_ bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var word [4]byte
	if _, err := f.ReadAt(word[:], superblockAt+incompatAt); err != nil {
		return false, err
	}
	return binary.LittleEndian.Uint32(word[:])&incompatReplay != 0, nil
}
