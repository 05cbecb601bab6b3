package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"udm"
	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/integrity"
)

func integrityCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "integrity",
		Short: "Make and open disks whose every block has a checksum",
		Long: `Make and open disks whose every block has a tag, a checksum or a MAC, that is checked
when it is read, as integritysetup does. No daemon, root or kernel is needed. A DISK is
a path, or what a table may name:
` + leaf.Help() + `
The hash and its key are not on the disk; they have to be given each time.`,
		Example: `  udm integrity format disk.img
  udm integrity open disk.img --socket disk.sock`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(integrityFormatCommand(), integrityOpenCommand(), integrityDumpCommand())
	return cmd
}

// integrityFlags are the options that say how tags are made.
type integrityFlags struct {
	hash, keyFile, dataDevice string
}

func (i *integrityFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&i.hash, "integrity", "crc32c", "hash: "+strings.Join(integrity.Algorithms(), ", "))
	f.StringVar(&i.keyFile, "integrity-key-file", "", "file with the key of a hmac, all bytes of it")
	f.StringVar(&i.dataDevice, "data-device", "", "disk with the data; then DISK has journal and tags only")
}

// line is the line of a table for a disk; tag size and mode are the caller's.
func (i *integrityFlags) line(disk string) (*integrity.Line, error) {
	name, err := diskName(disk)
	if err != nil {
		return nil, err
	}
	l := &integrity.Line{Mode: "J", Hash: strings.ToLower(i.hash), BlockSize: blk.SectorSize, BufferSectors: 128, InterleaveSectors: 32768, Watermark: 50, CommitTime: 10000}
	l.Device = name
	if inner, short := strings.CutPrefix(l.Hash, "hmac-"); short { // as integritysetup has it
		l.Hash = "hmac(" + inner + ")"
	}
	if i.dataDevice != "" {
		l.MetaDevice = name
		if l.Device, err = diskName(i.dataDevice); err != nil {
			return nil, err
		}
	}
	if i.keyFile != "" {
		key, err := os.ReadFile(i.keyFile)
		if err != nil {
			return nil, err
		}
		l.Key = hex.EncodeToString(key)
		clear(key)
	}
	return l, nil
}

func integrityFormatCommand() *cobra.Command {
	var f integrityFormat
	cmd := &cobra.Command{
		Use:   "format DISK",
		Short: "Make an integrity disk; what it held is lost",
		Long: `Make an integrity disk; what it held is lost. All blocks are written with zeroes, so
that they have tags; with --no-wipe they have none until they are written.`,
		Example: `  udm integrity format disk.img
  udm integrity format disk.img --integrity hmac-sha256 --integrity-key-file key --sector-size 4096`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.flags(cmd.Flags())
	fl := cmd.Flags()
	fl.IntVar(&f.tagSize, "tag-size", 0, "bytes of a tag; 0: all of the hash")
	fl.IntVar(&f.sectorSize, "sector-size", 512, "bytes that have one tag, 512 to 4096")
	fl.Uint32Var(&f.interleave, "interleave-sectors", 32768, "sectors of data between two runs of tags")
	fl.Uint64Var(&f.journal, "journal-size", 0, "bytes of the journal; 0: a part of the disk, 64 MiB at most")
	fl.BoolVar(&f.legacyPadding, "integrity-legacy-padding", false, "larger runs of tags, for kernels before 4.19")
	fl.BoolVar(&f.legacyHMAC, "integrity-legacy-hmac", false, "hashes cover no salt, for kernels before 5.12")
	fl.BoolVar(&f.noWipe, "no-wipe", false, "write no zeroes")
	addJSON(cmd)
	return cmd
}

type integrityFormat struct {
	integrityFlags
	tagSize, sectorSize               int
	interleave                        uint32
	journal                           uint64
	legacyPadding, legacyHMAC, noWipe bool
}

func (f *integrityFormat) run(cmd *cobra.Command, disk string) error {
	l, err := f.line(disk)
	if err != nil {
		return err
	}
	l.TagSize, l.BlockSize, l.InterleaveSectors = f.tagSize, f.sectorSize, f.interleave
	l.JournalSectors = uint32(min(f.journal/blk.SectorSize, 1<<31))
	l.FixPadding = !f.legacyPadding
	l.FixHMAC = !f.legacyHMAC && l.Key != ""
	if l, err = checkedLine(l); err != nil {
		return err
	}
	if err := withDisk(disk, true, func(d blk.Device) error {
		return errors.Join(blk.WriteSectors(env.Real(), d, make([]byte, 4096), 0, 0), blk.FlushDevice(env.Real(), d))
	}); err != nil {
		return err
	}
	if err := withIntegrity(l, 8, func(*udm.Device) error { return nil }); err != nil {
		return err
	}
	s, err := superblock(disk)
	if err == nil && !f.noWipe {
		l.Mode = "D"
		err = withIntegrity(l, s.Provided, wipe)
	}
	if err != nil {
		return err
	}
	return printIntegrity(cmd, s)
}

// checkedLine is a line as a table would have it.
func checkedLine(l *integrity.Line) (*integrity.Line, error) {
	text := l.String()
	if l.TagSize == 0 {
		words := dm.SplitWords(text)
		for i := range words {
			words[i] = dm.QuoteWord(words[i])
		}
		words[2] = "-"
		text = strings.Join(words, " ")
	}
	return integrity.ParseLine(dm.SplitWords(text))
}

// withIntegrity runs a device of so many sectors while use has it.
func withIntegrity(l *integrity.Line, sectors uint64, use func(*udm.Device) error) error {
	d, err := udm.Open(udm.Table(udm.Line(0, sectors, l.Target(), l)))
	if err != nil {
		return err
	}
	return errors.Join(use(d), d.Sync(), d.Close())
}

// wipe writes zeroes.
func wipe(d *udm.Device) error {
	zeroes := make([]byte, 4<<20)
	for at, size := int64(0), d.Size(); at < size; {
		n, err := d.WriteAt(zeroes[:min(int64(len(zeroes)), size-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

func superblock(disk string) (s *integrity.Superblock, err error) {
	err = withDisk(disk, false, func(d blk.Device) error {
		s, err = integrity.ReadSuperblock(env.Real(), d, 0)
		return err
	})
	return s, err
}

func integrityOpenCommand() *cobra.Command {
	var o integrityOpen
	cmd := &cobra.Command{
		Use:   "open DISK",
		Short: "Serve an integrity disk over NBD, until this command ends",
		Long: `Serve an integrity disk over NBD at a Unix socket, until this command is interrupted.
Reading a block that is not what its tag says fails.`,
		Example: `  udm integrity open disk.img --socket disk.sock`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "path of the socket to make")
	f.StringVar(&o.name, "name", "disk", "name of the NBD export")
	f.BoolVar(&o.noJournal, "integrity-no-journal", false, "write directly; a power cut may leave blocks that cannot be read")
	f.BoolVar(&o.recovery, "integrity-recovery-mode", false, "read only, and leave the journal alone")
	f.BoolVar(&o.discards, "allow-discards", false, "pass discards on")
	f.BoolVar(&o.recalculate, "integrity-recalculate", false, "compute tags of what is there, in the background")
	addJSON(cmd)
	return cmd
}

type integrityOpen struct {
	integrityFlags
	socket, name                               string
	noJournal, recovery, discards, recalculate bool
}

func (o *integrityOpen) run(cmd *cobra.Command, disk string) error {
	switch {
	case o.socket == "":
		return errors.New("say with --socket where to serve the disk")
	case o.noJournal && o.recovery:
		return errors.New("a disk is opened without journal or for recovery, not both")
	}
	s, err := superblock(disk)
	if err != nil {
		return err
	}
	l, err := o.line(disk)
	if err != nil {
		return err
	}
	l.TagSize, l.BlockSize = int(s.TagSize), blk.SectorSize<<s.LogBlock
	l.AllowDiscards, l.Recalculate = o.discards, o.recalculate
	stack := udm.New()
	create := stack.Create
	if o.noJournal {
		l.Mode = "D"
	} else if o.recovery {
		l.Mode = "R"
		create = stack.CreateReadOnly
	}
	if l, err = checkedLine(l); err != nil {
		return errors.Join(err, stack.Close())
	}
	return serveUntilDone(cmd, stack, o.name, o.socket, func() error {
		_, err := create(o.name, udm.Table(udm.Line(0, s.Provided, l.Target(), l)))
		return err
	})
}

func integrityDumpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dump DISK",
		Short:   "Print what the superblock of an integrity disk says",
		Example: `  udm integrity dump disk.img`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := superblock(args[0])
			if err != nil {
				return err
			}
			return printIntegrity(cmd, s)
		},
	}
	addJSON(cmd)
	return cmd
}

// integrityDump is a superblock for programs.
type integrityDump struct {
	Version         int      `json:"version"`
	TagSize         int      `json:"tagSize"`
	SectorSize      int      `json:"sectorSize"`
	Interleave      uint64   `json:"interleaveSectors"`
	JournalSections uint32   `json:"journalSections"`
	Provided        uint64   `json:"providedDataSectors"`
	Flags           []string `json:"flags"`
	Recalculated    uint64   `json:"recalculatedSectors,omitempty"`
}

func printIntegrity(cmd *cobra.Command, s *integrity.Superblock) error {
	d := integrityDump{int(s.Version), int(s.TagSize), blk.SectorSize << s.LogBlock, 1 << s.LogInterleave, s.JournalSections, s.Provided, s.Has(), s.RecalcSector}
	if wantsJSON(cmd) {
		return printJSON(cmd, d)
	}
	return d.print(cmd.OutOrStdout())
}

func (d *integrityDump) print(w io.Writer) error {
	var err error
	for _, row := range []struct {
		name  string
		value any
	}{
		{"Version", d.Version}, {"Tag size", d.TagSize}, {"Sector size", d.SectorSize}, {"Interleave sectors", d.Interleave},
		{"Journal sections", d.JournalSections}, {"Provided data sectors", d.Provided}, {"Flags", strings.Join(d.Flags, " ")},
	} {
		_, e := fmt.Fprintf(w, "%-22s %v\n", row.name+":", row.value)
		err = errors.Join(err, e)
	}
	return err
}
