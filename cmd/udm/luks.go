package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/blk/leaf"
	"udm/env"
	"udm/luks"
)

func luksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "luks",
		Short: "Open, create and change encrypted disks in the LUKS formats",
		Long: `Open, create and change encrypted disks in the LUKS formats, version 1 and 2, as
cryptsetup does. No daemon, root or kernel is needed. A DISK is a path, or any other
name that a table may have for a disk:
` + leaf.Help() + `
Passphrases are asked for on the terminal, or read from a file or a file descriptor.
They are never given on the command line, where other users could see them.`,
		Example: `  udm luks format disk.img
  udm luks open disk.img --socket /run/user/1000/disk.sock`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(luksOpenCommand(), luksFormatCommand(), luksDumpCommand(), luksAddKeyCommand(), luksChangeKeyCommand(), luksRemoveKeyCommand(),
		luksBackupCommand(), luksRestoreCommand(), luksRepairCommand())
	return cmd
}

// withContainer reads the header of a disk and calls f with it. If it is opened for
// writing and one copy of the header is damaged, it prints a warning.
func withContainer(cmd *cobra.Command, disk string, write bool, f func(*luks.Container) error) error {
	return withDisk(disk, write, func(d blk.Device) error {
		c, err := luks.Open(env.Real(), d, luks.Options{})
		if err != nil {
			return err
		}
		if c.Header.Damaged != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "udm: %s; udm luks repair rewrites it\n", c.Header.Damaged)
		}
		return f(c)
	})
}

// withDisk opens a disk while f runs. A word that is not a table's name for a disk is
// a path.
func withDisk(name string, write bool, f func(blk.Device) error) (err error) {
	if name, err = diskName(name); err != nil {
		return err
	}
	d, _, err := leaf.New(env.Real()).Open(name, write)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return f(d)
}

// diskName is a disk's name in tables.
func diskName(name string) (string, error) {
	if _, missing := os.Lstat(name); missing == nil || !strings.Contains(name, ":") {
		return filepath.Abs(name)
	}
	return name, nil
}

func luksFormatCommand() *cobra.Command {
	var f luks.Format
	var k kdfFlags
	var tags luksTags
	var sizeBits int
	var offset uint64
	s := &secret{what: "new passphrase", confirm: true}
	cmd := &cobra.Command{
		Use:   "format DISK",
		Short: "Create an encrypted disk; the present content is lost",
		Long: `Create an encrypted disk; the present content is lost. The header takes 16 MiB at the
start of the disk, for version 1 two to four MiB. With --detached, DISK gets only the
header, and the data can take all of another disk. With --integrity, reads of sectors that
somebody without the key has changed fail, and all sectors are written once.`,
		Example: `  udm luks format disk.img
  udm luks format --version 1 --key-file secret disk.img
  udm luks format --detached header.img`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.KeySize, f.Offset = sizeBits/8, offset
			f.KDF = k.kdf(f.Version, f.Hash)
			f.Integrity = hashName(f.Integrity)
			if f.Detached && f.Integrity != "" {
				return errors.New("--integrity formats the data as well, which --detached cannot; use one of them")
			}
			if err := withDisk(args[0], true, func(d blk.Device) error {
				p, err := s.read(cmd)
				if err != nil {
					return err
				}
				defer clear(p)
				c, err := luks.Create(env.Real(), d, f, p, luks.Options{})
				if err == nil && f.Integrity != "" {
					err = tags.prepare(c, p, d, args[0])
				}
				return err
			}); err != nil || f.Integrity == "" {
				return err
			}
			return tags.format()
		},
	}
	s.flags(cmd, "")
	k.flags(cmd)
	fl := cmd.Flags()
	fl.IntVar(&f.Version, "version", 2, "version of the format, 1 or 2")
	fl.StringVar(&f.Encryption, "cipher", "aes-xts-plain64", "cipher, mode and IV, as in tables of crypt")
	fl.IntVar(&sizeBits, "key-size", 512, "bits of the volume key")
	fl.StringVar(&f.Hash, "hash", "sha256", "hash of digests")
	fl.IntVar(&f.SectorSize, "sector-size", 512, "encryption sector size in bytes, 512 to 4096")
	fl.StringVar(&f.UUID, "uuid", "", "UUID (default: random)")
	fl.StringVar(&f.Label, "label", "", "label")
	fl.Uint64Var(&offset, "offset", 0, "byte offset of the data (default: after the header)")
	fl.StringVar(&f.Integrity, "integrity", "", "authenticate sectors: hmac-sha256, hmac-sha512 or hmac-sha1, aead with --cipher aes-gcm-random, poly1305 with chacha20-random")
	fl.BoolVar(&tags.noWipe, "integrity-no-wipe", false, "do not write zeroes; sectors cannot be read before they have been written")
	fl.BoolVar(&f.Detached, "detached", false, "write only a header")
	return cmd
}

// kdfFlags are the options for a new slot's key derivation.
type kdfFlags struct {
	kind       string
	memory     uint32
	time       uint32
	iterations uint64
}

func (k *kdfFlags) flags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&k.kind, "pbkdf", "", "argon2id, argon2i or pbkdf2 (default argon2id, in version 1 pbkdf2)")
	fl.Uint32Var(&k.memory, "pbkdf-memory", 256<<10, "memory cost of argon2 in KiB")
	fl.Uint32Var(&k.time, "pbkdf-time", 4, "time cost of argon2")
	fl.Uint64Var(&k.iterations, "pbkdf-iterations", 2000000, "iterations of pbkdf2")
}

func (k *kdfFlags) kdf(version int, hash string) luks.KDF {
	kind := k.kind
	if kind == "" {
		kind = luks.DefaultKDF(version).Type
	}
	if kind == "pbkdf2" {
		return luks.KDF{Type: kind, Hash: hash, Iterations: k.iterations}
	}
	return luks.KDF{Type: kind, Memory: k.memory, Time: k.time, CPUs: luks.DefaultKDF(2).CPUs}
}

func luksBackupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup DISK FILE",
		Short: "Back up the header of a disk, with its key slots, to a file",
		Long: `Copy the header of a disk with its key slots to a new file, like cryptsetup
luksHeaderBackup. Anyone who has the file and one of the present passphrases can
open the disk, even after that passphrase has been removed. Without a header nobody
can open the disk.`,
		Example: `  udm luks backup disk.img disk.luks`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withContainer(cmd, args[0], false, func(c *luks.Container) error {
				w, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return err
				}
				return errors.Join(c.Backup(w), w.Sync(), w.Close())
			})
		},
	}
}

func luksRestoreCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "restore DISK FILE",
		Short: "Restore the header of a disk from a backup",
		Long: `Write the header in a backup to its disk. Afterwards the passphrases of the backup
are valid. A backup of another disk, or with another data offset, is refused.`,
		Example: `  udm luks restore disk.img disk.luks`,
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := os.Open(args[1])
			if err != nil {
				return err
			}
			defer r.Close()
			backup, err := io.ReadAll(io.LimitReader(r, luks.MaxBackup))
			if err != nil {
				return err
			}
			return withDisk(args[0], true, func(d blk.Device) error { return luks.Restore(env.Real(), d, backup, force, luks.Options{}) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "even if the disk has another header; its data is lost unless the backup belongs to it")
	return cmd
}

func luksRepairCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "repair DISK",
		Short:   "Rewrite a damaged copy of a header from the other copy",
		Example: `  udm luks repair disk.img`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDisk(args[0], true, func(d blk.Device) error {
				c, err := luks.Open(env.Real(), d, luks.Options{})
				if err != nil || c.Header.Damaged == "" {
					return err
				}
				return c.Repair()
			})
		},
	}
}

// slotOf parses the number of a key slot.
func slotOf(word string) (int, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a key slot number; udm luks dump lists the slots", word)
	}
	return n, nil
}
