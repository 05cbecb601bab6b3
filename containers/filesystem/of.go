package filesystem

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// head is how much of a device tells what is on it.
const head = 64 << 10

// Of tells the file system of a device, "" if the device is empty. One that has something
// else is an error, so that nothing is formatted that may be needed.
func Of(path string) (Type, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	p := make([]byte, head)
	n, err := io.ReadFull(f, p)
	if err != nil && err != io.ErrUnexpectedEOF {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	switch p = p[:n]; {
	case n > 1082 && p[1080] == 0x53 && p[1081] == 0xef:
		return Ext4, nil
	case n > 1028 && string(p[superblockAt:1028]) == "\xe2\xe1\xf5\xe0":
		return Erofs, nil
	case bytes.HasPrefix(p, []byte("XFSB")):
		return XFS, nil
	case len(bytes.Trim(p, "\x00")) > 0:
		return "", fmt.Errorf("%s has data that is neither ext4, xfs nor erofs; use it as a raw block volume, or discard it", path)
	}
	return "", nil
}

// Grow makes a mounted file system as large as its device. The kernel asks for
// CAP_SYS_RESOURCE for ext4.
func (t Type) Grow(ctx context.Context, device, at string) error {
	if t == XFS {
		return run(ctx, "xfs_growfs", "-d", at)
	}
	return run(ctx, "resize2fs", device)
}

// GrowUnmounted is Grow before a file system is mounted, where that is possible: with
// ext4, for which nobody needs a capability then.
func (t Type) GrowUnmounted(ctx context.Context, device string) error {
	if t != Ext4 {
		return nil
	}
	small, err := smaller(device)
	if err != nil || !small {
		return err
	}
	var corrected *exec.ExitError
	if err := run(ctx, "e2fsck", "-f", "-p", device); err != nil && !(errors.As(err, &corrected) && corrected.ExitCode() == 1) {
		return err
	}
	return run(ctx, "resize2fs", device)
}

// Where the superblocks of ext4 and erofs are, and fields of that of ext4.
const (
	superblockAt = 1024
	blocksAt     = 0x04
	blockSizeAt  = 0x18
	blocksHighAt = 0x150
)

// smaller tells whether a file system of ext4 leaves room for a block or more.
func smaller(device string) (bool, error) {
	f, err := os.Open(device)
	if err != nil {
		return false, err
	}
	defer f.Close()
	p := make([]byte, 1024)
	if _, err := f.ReadAt(p, superblockAt); err != nil {
		return false, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	word := binary.LittleEndian.Uint32
	blocks, shift := uint64(word(p[blocksHighAt:]))<<32|uint64(word(p[blocksAt:])), 10+word(p[blockSizeAt:])%32
	return blocks < uint64(size)>>shift, err
}
