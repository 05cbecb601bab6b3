package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"udm/archive"
	"udm/ctl"
	"udm/volume"
	"udm/volume/rbddiff"
)

func archiveCreateCommand() *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use:   "create STORE DEVICE",
		Short: "Archive a snapshot: what has changed since the last archived one",
		Long: `create archives the content of a device, which should be a snapshot: of a device that is
written to meanwhile, the copy mixes several moments. If the archive has a snapshot that
the device still has, too, only the changes since then are read and stored; the newest
one is taken. Otherwise, and with --full, all is read.`,
		Example: `  udm snapshot disk tuesday
  udm archive create /backup tuesday`,
		Args: cobra.ExactArgs(2), ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openArchive(cmd, args[0])
			if err != nil {
				return err
			}
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			info, err := archiveDevice(cmd, a, client, args[1], full)
			if err != nil {
				return err
			}
			return say(cmd, info, "%s: read %s, stored %s\n", info.ID, formatBytes(info.Read), formatBytes(info.Stored))
		},
	}
	cmd.Flags().BoolVar(&full, "full", false, "read all of the device")
	addKey(cmd)
	addJSON(cmd)
	return cmd
}

// archiveDevice archives a device by its changes if that can be done, else as a whole.
func archiveDevice(cmd *cobra.Command, a *archive.Archive, client *ctl.Client, name string, full bool) (archive.Info, error) {
	list, err := a.List(cmd.Context())
	if err != nil {
		return archive.Info{}, err
	}
	if slices.ContainsFunc(list, func(i archive.Info) bool { return i.Name == name }) {
		return archive.Info{}, fmt.Errorf("the archive has a snapshot %s already; remove that one, or rename the device: udm rename %s NEW", name, name)
	}
	var base archive.Info
	if !full {
		if base, err = newestCommon(cmd.Context(), client, name, list); err != nil {
			return archive.Info{}, err
		}
	}
	if base.ID != "" {
		info, err := archiveStream(cmd, a, client, archive.BackupOptions{Name: name, Base: base.ID}, base)
		if !errors.Is(err, errOtherBase) && !errors.Is(err, syscall.ESTALE) {
			return info, err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "udm: %s is not what was archived under that name any more; archiving all of %s\n", base.Name, name)
	}
	o := archive.BackupOptions{Name: name}
	if n := len(list); n > 0 {
		o.Like = list[n-1].ID
	}
	return archiveStream(cmd, a, client, o, archive.Info{})
}

var errOtherBase = errors.New("the base is another one")

// newestCommon is the newest archived snapshot that the device can tell its changes since.
func newestCommon(ctx context.Context, client *ctl.Client, name string, list []archive.Info) (base archive.Info, err error) {
	names, err := client.Checkpoints(ctx, ctl.Object{Name: name})
	if err != nil {
		return base, err
	}
	for _, i := range slices.Backward(list) {
		if i.Content != "" && slices.Contains(names, i.Name) {
			return i, nil
		}
	}
	return base, nil
}

// archiveStream archives what the daemon sends.
func archiveStream(cmd *cobra.Command, a *archive.Archive, client *ctl.Client, o archive.BackupOptions, base archive.Info) (info archive.Info, err error) {
	err = pipe(func(w io.Writer) error {
		return follow(cmd, client, []string{o.Name}, func(ctx context.Context, c *ctl.Client) error {
			return c.Send(ctx, volume.SendSpec{Name: o.Name, From: base.Name}, w)
		})
	}, func(in io.Reader) (err error) {
		info, err = storeStream(cmd.Context(), a, o, base, in)
		return err
	})
	return info, err
}

// storeStream archives a stream. It must have come to its end, with its checksum.
func storeStream(ctx context.Context, a *archive.Archive, o archive.BackupOptions, base archive.Info, in io.Reader) (info archive.Info, err error) {
	r, err := rbddiff.NewReader(in)
	if err != nil {
		return info, err
	}
	o.Size = r.Header().Size
	b, err := a.Begin(ctx, o)
	if err != nil {
		return info, err
	}
	if err = storeRecords(b, r); err == nil && r.Seal() == nil {
		err = errors.New("the stream has no checksum")
	}
	if err == nil && base.ID != "" && r.Seal().From != base.Content {
		err = errOtherBase
	}
	if err != nil {
		return info, errors.Join(err, b.Abort())
	}
	return b.Commit(r.Seal().To)
}

func storeRecords(b *archive.Backup, r *rbddiff.Reader) error {
	for {
		rec, err := r.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case rec.Zero:
			err = b.Zero(rec.Offset, rec.Length)
		default:
			err = storeData(b, r, rec)
		}
		if err != nil {
			return err
		}
	}
}

// storeData stores a record in parts, as it may be longer than memory.
func storeData(b *archive.Backup, r *rbddiff.Reader, rec rbddiff.Record) error {
	for rec.Length > 0 {
		p := make([]byte, min(rec.Length, archive.ChunkSize-rec.Offset%archive.ChunkSize))
		if _, err := io.ReadFull(r, p); err != nil {
			return err
		}
		if err := b.Data(rec.Offset, p); err != nil {
			return err
		}
		rec.Offset, rec.Length = rec.Offset+uint64(len(p)), rec.Length-uint64(len(p))
	}
	return nil
}

func archiveRestoreCommand() *cobra.Command {
	var file, pool, name string
	cmd := &cobra.Command{
		Use:   "restore STORE SNAPSHOT [--file FILE] [--pool POOL]",
		Short: "Restore a snapshot from an archive to a new file or volume",
		Long: `restore writes an archived snapshot to a new sparse file, or has the daemon make a volume
of a pool with its content: as a whole, or not at all. The volume is read-only, like one
from udm receive; take a snapshot of it, or clone it, to write.`,
		Example: `  udm archive restore /backup monday --file disk.img
  udm archive restore /backup monday --pool p --name disk-monday`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (file == "") == (pool == "") {
				return usagef(cmd, "give either --file or --pool")
			}
			a, err := openArchive(cmd, args[0])
			if err != nil {
				return err
			}
			s, err := a.Snapshot(cmd.Context(), args[1], nil)
			if err != nil {
				return err
			}
			if file != "" {
				return restoreFile(cmd, s, file)
			}
			return restoreVolume(cmd, s, volume.ReceiveSpec{Name: name, Pool: pool})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "new `FILE`")
	cmd.Flags().StringVar(&pool, "pool", "", "`POOL` for a new volume")
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the volume; without it that of the snapshot")
	addKey(cmd)
	addJSON(cmd)
	return cmd
}

// restoreFile writes a file beside the wanted one, and names it when it is whole.
func restoreFile(cmd *cobra.Command, s *archive.Snapshot, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	err = f.Truncate(int64(s.Info().Size))
	if err == nil {
		report, end := progress(cmd, "restoring ")
		err = s.Restore(cmd.Context(), f, report)
		end()
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Link(f.Name(), path) // fails if it is there
	}
	return errors.Join(err, os.Remove(f.Name()))
}

// restoreVolume sends the snapshot to the daemon.
func restoreVolume(cmd *cobra.Command, s *archive.Snapshot, r volume.ReceiveSpec) error {
	if r.Name == "" {
		r.Name = s.Info().Name
	}
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	var got volume.Received
	err = pipe(func(w io.Writer) error { return writeStream(cmd.Context(), s, w) }, func(in io.Reader) error {
		return follow(cmd, client, []string{r.Name}, func(ctx context.Context, c *ctl.Client) (err error) {
			got, err = c.Receive(ctx, r, in)
			return err
		})
	})
	if err != nil || !wantsJSON(cmd) {
		return err
	}
	return printJSON(cmd, got)
}

// writeStream writes a snapshot as udm send does.
func writeStream(ctx context.Context, s *archive.Snapshot, out io.Writer) error {
	w, err := rbddiff.NewWriter(out, 0, rbddiff.Header{To: s.Info().Name, Size: s.Info().Size})
	if err == nil {
		err = s.Each(ctx, w.Data)
	}
	if err != nil {
		return err
	}
	return w.Close(rbddiff.Seal{To: s.Info().Content})
}
