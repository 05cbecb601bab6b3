package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"udm"
	"udm/blk"
	"udm/env"
	"udm/targets/verity"
	"udm/targets/verity/veritytools"
)

func verityOpenCommand() *cobra.Command {
	var o verityOpen
	cmd := &cobra.Command{
		Use:   "open DATA HASH [ROOT_HASH]",
		Short: "Serve a verified disk over NBD until interrupted",
		Long: `Serve a verified disk over NBD on a Unix socket until the command is interrupted. The
disk is read-only. Reads of corrupted blocks fail unless parity corrects them.`,
		Example: `  udm verity open root.img root.tree --root-hash-file root.hash --socket root.sock &
  nbdcopy 'nbd+unix:///disk?socket=root.sock' copy.img`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error { return o.serve(cmd, args) },
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "path of the NBD socket")
	f.StringVar(&o.name, "name", "disk", "name of the NBD export")
	f.BoolVar(&o.ignoreCorruption, "ignore-corruption", false, "log corrupted blocks and return them as they are")
	f.BoolVar(&o.ignoreZeroes, "ignore-zero-blocks", false, "return zeroes for blocks with the hash of zeroes, whatever the disk contains")
	f.BoolVar(&o.once, "check-at-most-once", false, "verify a data block only when it is first read")
	addJSON(cmd)
	return cmd
}

type verityOpen struct {
	verityFlags
	socket, name                         string
	ignoreCorruption, ignoreZeroes, once bool
}

func (o *verityOpen) serve(cmd *cobra.Command, args []string) error {
	if o.socket == "" {
		return errors.New("--socket is required: the path of the NBD socket")
	}
	line, sectors, err := o.line(args)
	if err != nil {
		return err
	}
	line.IgnoreZeroBlocks, line.CheckAtMostOnce = o.ignoreZeroes, o.once
	if o.ignoreCorruption {
		line.Mode = verity.Ignore
	}
	s := udm.New()
	s.Control().SetLog(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
	return serveUntilDone(cmd, s, o.name, o.socket, func() error {
		_, err := s.CreateReadOnly(o.name, udm.Table(udm.Line(0, sectors, line.Target(), line)))
		return err
	})
}

// line returns the table line that the options and arguments describe, and its length.
func (v *verityFlags) line(args []string) (line *verity.Line, sectors uint64, err error) {
	root, err := v.rootHash(args[2:])
	if err != nil {
		return nil, 0, err
	}
	data, err := diskName(args[0])
	if err != nil {
		return nil, 0, err
	}
	hash, err := diskName(args[1])
	if err != nil {
		return nil, 0, err
	}
	h, err := v.existing(data, hash)
	if err != nil {
		return nil, 0, err
	}
	line = h.Line(data, hash, root)
	if v.fec != "" {
		if line.FEC, err = v.planFEC(h, hash); err == nil {
			line.FEC.Device, err = diskName(v.fec)
		}
	}
	return line, h.Sectors(), err
}

// existing returns the header of an existing disk.
func (v *verityFlags) existing(data, hash string) (h *veritytools.Header, err error) {
	if v.noSuperblock {
		err = withDisk(data, false, func(d blk.Device) error {
			h, err = v.header(d.Limits().Size)
			return err
		})
		return h, err
	}
	err = withDisk(hash, false, func(d blk.Device) error {
		h, err = veritytools.Read(env.Real(), d, v.offset)
		return err
	})
	if err == nil {
		err = h.Check(v.offset, true)
	}
	return h, err
}

func verityVerifyCommand() *cobra.Command {
	var v verityFlags
	cmd := &cobra.Command{
		Use:   "verify DATA HASH [ROOT_HASH]",
		Short: "Verify a whole disk",
		Long: `Read and verify a whole disk. Corrupted blocks are logged, up to 100 of them, and with
--fec-device also the blocks that parity corrects.`,
		Example: `  udm verity verify root.img root.tree --root-hash-file root.hash`,
		Args:    cobra.RangeArgs(2, 3),
		RunE:    func(cmd *cobra.Command, args []string) error { return v.verify(cmd, args) },
	}
	v.flags(cmd.Flags())
	return cmd
}

func (v *verityFlags) verify(cmd *cobra.Command, args []string) error {
	line, sectors, err := v.line(args)
	if err != nil {
		return err
	}
	line.Mode = verity.Ignore // continue after corrupted blocks
	s := udm.New()
	s.Control().SetLog(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
	d, err := s.CreateReadOnly("disk", udm.Table(udm.Line(0, sectors, line.Target(), line)))
	if err == nil {
		_, err = io.CopyBuffer(io.Discard, onlyReader{io.NewSectionReader(d, 0, d.Size())}, make([]byte, 4<<20))
	}
	if err == nil && d.Status() != fmt.Sprintf("0 %d verity V", sectors) {
		err = errors.New("the disk is corrupted, or the root hash belongs to another disk")
	}
	return errors.Join(err, s.Close())
}

// onlyReader hides all methods but Read, so that a copy uses its buffer.
type onlyReader struct{ io.Reader }
