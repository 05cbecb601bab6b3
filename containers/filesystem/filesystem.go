// Package filesystem makes, grows and freezes file systems with the programs and calls
// that Linux has for that.
package filesystem

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Type is a file system that volumes can have.
type Type string

// The types.
const (
	Ext4  Type = "ext4"
	XFS   Type = "xfs"
	Erofs Type = "erofs" // of images only: it is read-only
)

// Parse returns the type of a name that can be made; "" is ext4.
func Parse(name string) (Type, error) {
	switch t := Type(name); t {
	case "":
		return Ext4, nil
	case Ext4, XFS:
		return t, nil
	}
	return "", fmt.Errorf("file systems of type %q are not supported; use ext4 or xfs", name)
}

// Make makes a file system on a new volume, which reads as zeroes and takes space only
// for what is written: so tables of inodes are left as they are.
func (t Type) Make(ctx context.Context, path string) error {
	if t == XFS {
		return run(ctx, "mkfs.xfs", "-q", "-f", "-K", path)
	}
	return run(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=16",
		"-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1", path)
}

// Empty removes what a new file system has in its root: containers shall not see it.
func (t Type) Empty(ctx context.Context, path string) error {
	if t != Ext4 {
		return nil
	}
	return run(ctx, "debugfs", "-w", "-R", "rmdir lost+found", path)
}

// Replay writes the journal of a file system that is not mounted back.
func (t Type) Replay(ctx context.Context, path string) error {
	return run(ctx, "e2fsck", "-p", "-E", "journal_only", path)
}

// Options are what a mount of the type needs where several have the same id, being
// clones of each other.
func (t Type) Options() []string {
	if t == XFS {
		return []string{"nouuid"}
	}
	return nil
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
