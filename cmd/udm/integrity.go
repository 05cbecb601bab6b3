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
		Short: "Create and open disks with a checksum for each block",
		Long: `Create and open disks that store a tag, a checksum or MAC, with each block and verify it
on reads, as integritysetup does, without a daemon, root or the kernel. DISK names a disk
as tables do:
` + leaf.Help() + `
The disk does not record the hash and its key; specify them each time.`,
		Example: `  udm integrity format disk.img
  udm integrity open disk.img --socket disk.sock`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(integrityFormatCommand(), integrityOpenCommand(), integrityDumpCommand())
	return cmd
}

// integrityFlags are the options that describe the tags and their disk.
type integrityFlags struct {
	hash, keyFile, dataDevice string
	journalMAC, journalMACKey string
	journalCrypt, journalKey  string
}

func (i *integrityFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&i.hash, "integrity", "crc32c", "hash: "+strings.Join(integrity.Algorithms(), ", "))
	f.StringVar(&i.keyFile, "integrity-key-file", "", "file whose contents are the key of the HMAC")
	f.StringVar(&i.journalMAC, "journal-integrity", "", "MAC of the journal, such as hmac-sha256")
	f.StringVar(&i.journalMACKey, "journal-integrity-key-file", "", "file whose contents are the key of that MAC")
	f.StringVar(&i.journalCrypt, "journal-crypt", "", "cipher of the journal: cbc-aes or ctr-aes")
	f.StringVar(&i.journalKey, "journal-crypt-key-file", "", "file whose contents are the key of that cipher")
	f.StringVar(&i.dataDevice, "data-device", "", "disk for the data, so that DISK holds only journal and tags")
}

// line returns the table line for a disk, in mode J. The caller sets the tag size.
func (i *integrityFlags) line(disk string) (*integrity.Line, error) {
	name, err := diskName(disk)
	if err != nil {
		return nil, err
	}
	l := integrity.NewLine(dm.Place{Device: name})
	l.Hash = hashName(i.hash)
	if i.dataDevice != "" {
		l.MetaDevice = name
		if l.Device, err = diskName(i.dataDevice); err != nil {
			return nil, err
		}
	}
	l.JournalMAC.Name, l.JournalCrypt.Name = hashName(i.journalMAC), cipherName(i.journalCrypt)
	for _, k := range []struct {
		file string
		to   *string
	}{{i.keyFile, &l.Key}, {i.journalMACKey, &l.JournalMAC.Key}, {i.journalKey, &l.JournalCrypt.Key}} {
		if *k.to, err = keyOf(k.file); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// keyOf is the content of a file in hexadecimal digits; without a file it is empty.
func keyOf(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	key, err := os.ReadFile(file)
	defer clear(key)
	return hex.EncodeToString(key), err
}

// cipherName is the kernel's name of a cipher that integritysetup calls MODE-CIPHER.
func cipherName(name string) string {
	if mode, cipher, short := strings.Cut(strings.ToLower(name), "-"); short {
		return mode + "(" + cipher + ")"
	}
	return name
}

// hashName is the kernel's name of a hash that cryptsetup calls hmac-HASH.
func hashName(name string) string {
	name = strings.ToLower(name)
	if inner, short := strings.CutPrefix(name, "hmac-"); short {
		return "hmac(" + inner + ")"
	}
	return name
}

func integrityFormatCommand() *cobra.Command {
	var f integrityFormat
	cmd := &cobra.Command{
		Use:   "format DISK",
		Short: "Format an integrity disk, destroying its contents",
		Long: `Format an integrity disk, destroying its contents. All blocks are overwritten with
zeroes, so that they have valid tags. With --no-wipe, blocks cannot be read until they
have been written.`,
		Example: `  udm integrity format disk.img
  udm integrity format disk.img --integrity hmac-sha256 --integrity-key-file key --sector-size 4096`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.flags(cmd.Flags())
	fl := cmd.Flags()
	fl.IntVar(&f.tagSize, "tag-size", 0, "size of a tag in bytes, 0 for the size of the hash")
	fl.IntVar(&f.sectorSize, "sector-size", 512, "size of a block with one tag in bytes, 512 to 4096")
	fl.Uint32Var(&f.interleave, "interleave-sectors", 32768, "sectors of data between two runs of tags")
	fl.Uint64Var(&f.journal, "journal-size", 0, "size of the journal in bytes, 0 for a part of the disk, at most 64 MiB")
	fl.BoolVar(&f.legacyPadding, "integrity-legacy-padding", false, "use the larger padding of kernels before 4.19")
	fl.BoolVar(&f.legacyHMAC, "integrity-legacy-hmac", false, "do not include a salt in hashes, for kernels before 5.12")
	fl.BoolVar(&f.noWipe, "no-wipe", false, "do not write zeroes")
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
	l.FixHMAC = !f.legacyHMAC && (l.Key != "" || l.JournalMAC.Name != "")
	s, err := formatIntegrity(l, disk, !f.noWipe)
	if err != nil {
		return err
	}
	return printIntegrity(cmd, s)
}

// formatIntegrity formats the disk of a line. wiped: all blocks are zeroes with valid tags.
func formatIntegrity(l *integrity.Line, disk string, wiped bool) (*integrity.Superblock, error) {
	l, err := checkedLine(l)
	if err == nil {
		err = withDisk(disk, true, func(d blk.Device) error {
			return errors.Join(blk.WriteSectors(env.Real(), d, make([]byte, 4096), 0, 0), blk.FlushDevice(env.Real(), d))
		})
	}
	if err == nil {
		err = withIntegrity(l, 8, func(*udm.Device) error { return nil })
	}
	if err != nil {
		return nil, err
	}
	s, err := superblock(disk)
	if err == nil && wiped {
		l.Mode = "D"
		err = withIntegrity(l, s.Provided, wipe)
	}
	return s, err
}

// checkedLine returns the line after parsing it as part of a table.
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

// withIntegrity calls use with a running device of the given size, and closes the device.
func withIntegrity(l *integrity.Line, sectors uint64, use func(*udm.Device) error) error {
	d, err := udm.Open(udm.Table(udm.Line(0, sectors, l.Target(), l)))
	if err != nil {
		return err
	}
	return errors.Join(use(d), d.Sync(), d.Close())
}

// wipe fills a device with zeroes.
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
		Short: "Serve an integrity disk over NBD until interrupted",
		Long: `Serve an integrity disk over NBD on a Unix socket until the command is interrupted.
Reads of blocks that do not match their tags fail.`,
		Example: `  udm integrity open disk.img --socket disk.sock`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "path of the NBD socket")
	f.StringVar(&o.name, "name", "disk", "name of the NBD export")
	f.BoolVar(&o.bitmap, "integrity-bitmap-mode", false, "write directly, and compute tags again after a power cut where a bitmap says so")
	f.Uint64Var(&o.sectorsPerBit, "bitmap-sectors-per-bit", 32768, "sectors for each bit of the bitmap")
	f.Uint32Var(&o.flushTime, "bitmap-flush-time", 10000, "milliseconds after which the bitmap is cleared")
	f.BoolVar(&o.noJournal, "integrity-no-journal", false, "write directly, so that a power cut may leave unreadable blocks")
	f.BoolVar(&o.recovery, "integrity-recovery-mode", false, "open read-only without replaying the journal")
	f.BoolVar(&o.discards, "allow-discards", false, "pass on discards")
	f.BoolVar(&o.recalculate, "integrity-recalculate", false, "compute the tags of existing data in the background")
	addJSON(cmd)
	return cmd
}

type integrityOpen struct {
	integrityFlags
	socket, name                                       string
	bitmap, noJournal, recovery, discards, recalculate bool
	sectorsPerBit                                      uint64
	flushTime                                          uint32 // milliseconds
}

func (o *integrityOpen) run(cmd *cobra.Command, disk string) error {
	switch {
	case o.socket == "":
		return errors.New("--socket is required: the path of the NBD socket")
	case o.noJournal && o.recovery, o.bitmap && (o.noJournal || o.recovery):
		return errors.New("use only one of --integrity-bitmap-mode, --integrity-no-journal and --integrity-recovery-mode")
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
	switch {
	case o.bitmap:
		l.Mode, l.SectorsPerBit, l.BitmapFlushInterval = "B", o.sectorsPerBit, o.flushTime
	case o.noJournal:
		l.Mode = "D"
	case o.recovery:
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
		Short:   "Print the superblock of an integrity disk",
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

// integrityDump is the JSON output of dump and format.
type integrityDump struct {
	Version         int      `json:"version"`
	TagSize         int      `json:"tagSize"`
	SectorSize      int      `json:"sectorSize"`
	Interleave      uint64   `json:"interleaveSectors"`
	JournalSections uint32   `json:"journalSections"`
	Provided        uint64   `json:"providedDataSectors"`
	SectorsPerBit   uint64   `json:"sectorsPerBit"` // 0: unknown
	Flags           []string `json:"flags"`
	Recalculated    uint64   `json:"recalculatedSectors,omitempty"`
}

func printIntegrity(cmd *cobra.Command, s *integrity.Superblock) error {
	d := integrityDump{int(s.Version), int(s.TagSize), blk.SectorSize << s.LogBlock, 1 << s.LogInterleave, s.JournalSections, s.Provided, 1 << s.LogBitmapBit << s.LogBlock, s.FlagNames(), s.RecalcSector}
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
		{"Journal sections", d.JournalSections}, {"Provided data sectors", d.Provided}, {"Sectors per bit", d.SectorsPerBit}, {"Flags", strings.Join(d.Flags, " ")},
	} {
		_, e := fmt.Fprintf(w, "%-22s %v\n", row.name+":", row.value)
		err = errors.Join(err, e)
	}
	return err
}
