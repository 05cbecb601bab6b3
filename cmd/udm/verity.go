package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/verity"
	"udm/targets/verity/hashtree"
	"udm/targets/verity/veritytools"
)

func verityCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verity",
		Short: "Create, verify and open disks that are protected by a hash tree",
		Long: `Create, verify and open disks whose blocks are verified against a hash tree when they
are read, as veritysetup does, without a daemon, root or the kernel. DATA and HASH name
disks as tables do, and may be the same disk:
` + leaf.Help() + `
The root hash guarantees that reads return the data for which the tree was created.`,
		Example: `  udm verity format root.img root.tree --root-hash-file root.hash
  udm verity verify root.img root.tree --root-hash-file root.hash
  udm verity open root.img root.tree --root-hash-file root.hash --socket root.sock`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(verityFormatCommand(), verityOpenCommand(), verityVerifyCommand(), verityDumpCommand())
	return cmd
}

// verityFlags are the options that describe a disk.
type verityFlags struct {
	shape        hashtree.Shape
	offset       uint64
	noSuperblock bool
	salt         string
	rootFile     string
	fec          string
	fecOffset    uint64
	fecRoots     int
}

func (v *verityFlags) flags(f *pflag.FlagSet) {
	f.IntVar(&v.shape.Version, "format", 1, "hash type, 1 or 0 (Chromium OS)")
	f.IntVar(&v.shape.DataBlock, "data-block-size", 4096, "size of a data block in bytes")
	f.IntVar(&v.shape.HashBlock, "hash-block-size", 4096, "size of a hash block in bytes")
	f.Uint64Var(&v.shape.DataBlocks, "data-blocks", 0, "number of data blocks, 0 for the whole disk")
	f.StringVar(&v.shape.Algorithm, "hash", "sha256", "hash algorithm: "+strings.Join(hashtree.Algorithms(), ", "))
	f.StringVar(&v.salt, "salt", "", "salt in hexadecimal, - for none (default random)")
	f.Uint64Var(&v.offset, "hash-offset", 0, "offset of the superblock and the tree on HASH in bytes")
	f.BoolVar(&v.noSuperblock, "no-superblock", false, "use no superblock, take its contents from the options")
	f.StringVar(&v.rootFile, "root-hash-file", "", "file that holds the root hash")
	f.StringVar(&v.fec, "fec-device", "", "disk that holds the parity")
	f.Uint64Var(&v.fecOffset, "fec-offset", 0, "offset of the parity in bytes")
	f.IntVar(&v.fecRoots, "fec-roots", 2, "bytes of parity in a codeword of 255, 2 to 24")
}

// header returns the header that the options describe, for data of size sectors.
func (v *verityFlags) header(size uint64) (*veritytools.Header, error) {
	h := &veritytools.Header{Shape: v.shape}
	h.Shape.Algorithm = strings.ToLower(h.Shape.Algorithm)
	if h.Shape.DataBlocks == 0 && h.Shape.DataBlock >= blk.SectorSize {
		h.Shape.DataBlocks = size / uint64(h.Shape.DataBlock/blk.SectorSize)
	}
	var err error
	if h.Shape.Salt, err = hex.DecodeString(strings.TrimPrefix(v.salt, "-")); err != nil {
		return nil, fmt.Errorf("%q is not a salt; use hexadecimal digits, or - for none", v.salt)
	}
	return h, h.Check(v.offset, !v.noSuperblock)
}

// disks opens several disks, some of which may be the same.
type disks struct {
	opener *leaf.Opener
	open   []blk.Device
}

func newDisks() *disks { return &disks{opener: leaf.New(env.Real())} }

func (ds *disks) get(name string, write bool) (blk.Device, dm.Number, error) {
	name, err := diskName(name)
	if err != nil {
		return nil, dm.Number{}, err
	}
	d, number, err := ds.opener.Open(name, write)
	if err == nil {
		ds.open = append(ds.open, d)
	}
	return d, number, err
}

func (ds *disks) close() error {
	var errs []error
	for _, d := range ds.open {
		errs = append(errs, d.Close())
	}
	ds.open = nil
	return errors.Join(errs...)
}

// grow extends a file to at least the given size, and creates it if necessary. It does
// nothing for names that are not regular files.
func grow(name string, bytes uint64) error {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() || err != nil && strings.Contains(name, ":") {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && uint64(info.Size()) < bytes {
		err = f.Truncate(int64(bytes))
	}
	return errors.Join(err, f.Close())
}

// rootHash returns the root hash from the arguments or from --root-hash-file.
func (v *verityFlags) rootHash(args []string) ([]byte, error) {
	var text string
	switch {
	case len(args) > 0 && v.rootFile != "":
		return nil, errors.New("use either the argument ROOT_HASH or --root-hash-file, not both")
	case len(args) > 0:
		text = args[0]
	case v.rootFile != "":
		p, err := os.ReadFile(v.rootFile)
		if err != nil {
			return nil, err
		}
		text = strings.TrimSpace(string(p))
	default:
		return nil, errors.New("the root hash is required; use the argument ROOT_HASH or --root-hash-file")
	}
	root, err := hex.DecodeString(text)
	if err != nil || len(root) == 0 {
		return nil, fmt.Errorf("%q is not a root hash; use pairs of hexadecimal digits", text)
	}
	return root, nil
}

func verityDumpCommand() *cobra.Command {
	var offset uint64
	cmd := &cobra.Command{
		Use:     "dump HASH",
		Short:   "Print the superblock of a verity disk",
		Example: `  udm verity dump root.tree`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDisk(args[0], false, func(d blk.Device) error {
				h, err := veritytools.Read(env.Real(), d, offset)
				if err != nil {
					return err
				}
				return printVerity(cmd, verityDumpOf(h, nil, verity.FEC{}))
			})
		},
	}
	cmd.Flags().Uint64Var(&offset, "hash-offset", 0, "offset of the superblock on HASH in bytes")
	addJSON(cmd)
	return cmd
}

// verityDump is the JSON output of dump and format.
type verityDump struct {
	UUID       string `json:"uuid,omitempty"`
	HashType   int    `json:"hashType"`
	DataBlocks uint64 `json:"dataBlocks"`
	DataBlock  int    `json:"dataBlockSize"`
	HashBlocks uint64 `json:"hashBlocks"`
	HashBlock  int    `json:"hashBlockSize"`
	HashStart  uint64 `json:"hashStart"`
	Algorithm  string `json:"hashAlgorithm"`
	FECRoots   int    `json:"fecRoots,omitempty"`
	FECBlocks  uint64 `json:"fecBlocks,omitempty"`
	Salt       string `json:"salt"`
	Root       string `json:"rootHash,omitempty"`
}

func verityDumpOf(h *veritytools.Header, root []byte, f verity.FEC) *verityDump {
	s := &h.Shape
	d := &verityDump{HashType: s.Version, DataBlocks: s.DataBlocks, DataBlock: s.DataBlock, HashBlock: s.HashBlock, HashStart: s.Start, Algorithm: s.Algorithm,
		Salt: hex.EncodeToString(s.Salt), Root: hex.EncodeToString(root), FECRoots: f.Roots, FECBlocks: f.Blocks}
	if h.UUID != (veritytools.UUID{}) {
		d.UUID = h.UUID.String()
	}
	if t, err := hashtree.New(*s); err == nil {
		d.HashBlocks = t.End() - s.Start
	}
	return d
}

func printVerity(cmd *cobra.Command, d *verityDump) error {
	if wantsJSON(cmd) {
		return printJSON(cmd, d)
	}
	rows := [][]string{
		{"UUID:", d.UUID},
		{"Hash type:", fmt.Sprint(d.HashType)},
		{"Data blocks:", fmt.Sprint(d.DataBlocks)},
		{"Data block size:", fmt.Sprint(d.DataBlock)},
		{"Hash blocks:", fmt.Sprint(d.HashBlocks)},
		{"Hash block size:", fmt.Sprint(d.HashBlock)},
		{"Hash algorithm:", d.Algorithm},
	}
	if d.FECRoots > 0 {
		rows = append(rows, []string{"FEC roots:", fmt.Sprint(d.FECRoots)}, []string{"FEC blocks:", fmt.Sprint(d.FECBlocks)})
	}
	rows = append(rows, []string{"Salt:", d.Salt})
	if d.Root != "" {
		rows = append(rows, []string{"Root hash:", d.Root})
	}
	for _, r := range rows {
		fmt.Fprintf(cmd.OutOrStdout(), "%-17s %s\n", r[0], r[1])
	}
	return nil
}
