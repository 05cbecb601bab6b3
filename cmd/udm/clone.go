package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/blk/filedev"
	"udm/ctl"
	"udm/targets/snapshot"
)

// chunk is the chunk size of the stores that udm makes, in sectors: 8 KiB.
const chunk = 16

func cloneCommand() *cobra.Command {
	var store, pool string
	var size sectorsFlag
	cmd := &cobra.Command{
		Use:   "clone IMAGE NAME",
		Short: "Create a writable copy-on-write clone of an image",
		Long: `clone creates a writable device with the content of an image. It takes no time,
however large the image is. The image is only read. It must not change while the
clone exists. Writes go to a sparse store file, or to a pool. Any number of clones
can share an image.`,
		Example: `  udm clone debian.img vm1
  udm clone debian.img vm2 --store /srv/vm2.cow --size 2G
  udm clone debian.img vm3 --pool fast`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if pool != "" && (store != "" || size != 0) {
				return errors.New("--pool cannot be used with --store or --size; a clone in a pool has no store file")
			}
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			image, sectors, err := imageSize(args[0])
			if err != nil {
				return err
			}
			var d ctl.Device
			if pool != "" {
				d, err = m.thinClone(image, sectors, pool, args[1])
			} else {
				d, err = m.clone(image, sectors, args[1], store, uint64(size))
			}
			if err != nil {
				return err
			}
			return printDevice(cmd, d)
		},
	}
	cmd.Flags().StringVar(&store, "store", "", "file for what is written (default ROOT/stores/NAME.cow); an existing store is used again")
	cmd.Flags().Var(&size, "size", "largest size of the store (default: enough for the whole image)")
	cmd.Flags().StringVar(&pool, "pool", "", "keep the clone in this pool")
	addJSON(cmd)
	return cmd
}

// completeImage offers files for the first operand only.
func completeImage(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// imageSize is the absolute path of an image and its size in sectors.
func imageSize(image string) (string, uint64, error) {
	path, err := filepath.Abs(image)
	if err != nil {
		return "", 0, err
	}
	d, err := filedev.Open(path, filedev.Options{ReadOnly: true})
	if err != nil {
		return "", 0, fmt.Errorf("image %s: %w", image, err)
	}
	n := d.Limits().Size
	if err := d.Close(); err != nil {
		return "", 0, err
	}
	if n == 0 {
		return "", 0, fmt.Errorf("image %s is smaller than a sector", image)
	}
	return path, n, nil
}

// clone makes the device name, a snapshot of an image with a store of its own.
// size is that of a new store in sectors; 0: enough for every chunk.
func (m *maker) clone(image string, sectors uint64, name, store string, size uint64) (ctl.Device, error) {
	path, made, err := m.store(name, store, sectors, size)
	if err != nil {
		return ctl.Device{}, err
	}
	d, err := m.client.Create(m.ctx, ctl.Create{Name: name, Table: snapshotLine(sectors, image, path)})
	if err != nil {
		return d, errors.Join(explain(name, err), m.unmake(path, made))
	}
	return d, nil
}

func snapshotLine(sectors uint64, origin, store string) string {
	return table(sectors, &snapshot.Line{Origin: origin, COW: store, Persistent: true, Chunk: chunk})
}

// store makes the file of a store, or takes the one named by the user if it
// exists, and reports whether it was made.
func (m *maker) store(name, path string, sectors, size uint64) (_ string, made bool, err error) {
	named := path != ""
	if !named {
		path = filepath.Join(m.root, "stores", name+".cow")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", false, err
		}
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", false, err
	}
	if size == 0 {
		size = storeSize(sectors)
	}
	switch err = filedev.Create(path, size); {
	case err == nil:
		return path, true, nil
	case !errors.Is(err, fs.ErrExist):
		return "", false, err
	case named:
		return path, false, nil
	}
	return "", false, fmt.Errorf("%s exists, from an earlier clone; use it again with --store %s or delete it", path, path)
}

// storeSize is how many sectors a store takes when every chunk of a device has
// been written: a header, the chunks, and an area of entries for as many chunks
// as it has entries of 16 bytes.
func storeSize(sectors uint64) uint64 {
	chunks := (sectors + chunk - 1) / chunk
	perArea := uint64(chunk * blk.SectorSize / 16)
	areas := chunks/perArea + 1
	return (1 + areas + chunks + 1) * chunk
}

// unmake deletes a file again that was made for nothing.
func (m *maker) unmake(path string, made bool) error {
	if !made {
		return nil
	}
	return os.Remove(path)
}
