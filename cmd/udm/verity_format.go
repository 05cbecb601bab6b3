package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/env"
	"udm/targets/verity"
	"udm/targets/verity/veritytools"
)

func verityFormatCommand() *cobra.Command {
	var f verityFormat
	cmd := &cobra.Command{
		Use:   "format DATA HASH",
		Short: "Create the hash tree of a disk and print its root hash",
		Long: `Create the hash tree of a disk and print its root hash. If HASH is a file that does not
exist, it is created. HASH may be DATA if --hash-offset puts the tree after the data
blocks. --fec-device also creates parity, which can correct blocks that become corrupted.`,
		Example: `  udm verity format root.img root.tree --root-hash-file root.hash
  udm verity format root.img root.img --data-blocks 65536 --hash-offset 268435456
  udm verity format root.img root.tree --fec-device root.fec --fec-roots 24`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1]) },
	}
	f.flags(cmd.Flags())
	cmd.Flags().StringVar(&f.uuid, "uuid", "", "UUID of the superblock (default random)")
	addJSON(cmd)
	return cmd
}

type verityFormat struct {
	verityFlags
	uuid string
}

func (f *verityFormat) run(cmd *cobra.Command, data, hash string) error {
	h, err := f.plan(data)
	if err != nil {
		return err
	}
	size, err := h.HashBytes()
	if err == nil {
		err = grow(hash, size)
	}
	var fec verity.FEC
	if err == nil && f.fec != "" {
		fec, err = f.planNewFEC(h, hash)
	}
	if err != nil {
		return err
	}
	root, err := f.make(h, fec, data, hash)
	if err == nil && f.rootFile != "" {
		err = os.WriteFile(f.rootFile, []byte(hex.EncodeToString(root)), 0o644) // it is not secret
	}
	if err != nil {
		return err
	}
	return printVerity(cmd, verityDumpOf(h, root, fec))
}

// plan returns the header of the new disk.
func (f *verityFormat) plan(data string) (h *veritytools.Header, err error) {
	var id veritytools.UUID
	if f.uuid != "" {
		id, err = veritytools.ParseUUID(f.uuid)
	} else if !f.noSuperblock {
		id, err = veritytools.NewUUID()
	}
	if f.salt == "" && err == nil {
		salt := make([]byte, 32)
		_, err = rand.Read(salt)
		f.salt = hex.EncodeToString(salt)
	}
	if err != nil {
		return nil, err
	}
	err = withDisk(data, false, func(d blk.Device) error {
		h, err = f.header(d.Limits().Size)
		return err
	})
	if err == nil {
		h.UUID = id
	}
	return h, err
}

// planNewFEC returns the parameters of the parity, and extends its file to the size needed.
func (f *verityFormat) planNewFEC(h *veritytools.Header, hash string) (verity.FEC, error) {
	if err := grow(f.fec, max(blk.SectorSize, f.fecOffset)); err != nil {
		return verity.FEC{}, err
	}
	plan, err := f.planFEC(h, hash)
	if err == nil {
		err = grow(f.fec, veritytools.FECBytes(plan, h.Shape.DataBlock))
	}
	return plan, err
}

// make writes the tree, the superblock and then the parity, which covers the tree and all
// blocks after it.
func (f *verityFormat) make(h *veritytools.Header, fec verity.FEC, data, hash string) (root []byte, err error) {
	ds := newDisks()
	defer func() { err = errors.Join(err, ds.close()) }()
	to, number, err := ds.get(hash, true)
	if err != nil {
		return nil, err
	}
	from, source, err := ds.get(data, false)
	if err != nil {
		return nil, err
	}
	if end := h.Sectors() * blk.SectorSize; number == source && f.offset < end {
		return nil, fmt.Errorf("the tree at byte %d would overlap the data, which end at byte %d; use --hash-offset and --data-blocks", f.offset, end)
	}
	e := env.Real()
	root, err = veritytools.Create(e, from, to, h)
	if err == nil && !f.noSuperblock {
		err = h.WriteSuperblock(e, to, f.offset)
	}
	if err != nil || f.fec == "" {
		return root, err
	}
	d, _, err := ds.get(f.fec, true)
	if err != nil {
		return nil, err
	}
	return root, veritytools.CreateFEC(e, from, to, d, h, fec)
}

// planFEC returns the parameters of the parity for the disks as they are.
func (v *verityFlags) planFEC(h *veritytools.Header, hash string) (plan verity.FEC, err error) {
	ds := newDisks()
	defer func() { err = errors.Join(err, ds.close()) }()
	d, number, err := ds.get(hash, false)
	if err != nil {
		return plan, err
	}
	_, n, err := ds.get(v.fec, false)
	if err != nil {
		return plan, err
	}
	return h.PlanFEC(v.fecOffset, d.Limits().Size*blk.SectorSize, n == number, v.fecRoots)
}
