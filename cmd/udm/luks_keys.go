package main

import (
	"github.com/spf13/cobra"

	"udm/luks"
)

func luksAddKeyCommand() *cobra.Command {
	old, fresh := &secret{what: "passphrase"}, &secret{what: "new passphrase", confirm: true}
	var k kdfFlags
	cmd := &cobra.Command{
		Use:     "add-key DISK",
		Short:   "Add a passphrase to a disk",
		Example: `  udm luks add-key disk.img --new-key-file spare`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeKeys(cmd, args[0], old, fresh, luks.AnySlot, func(c *luks.Container, key *luks.Key, p []byte) (int, error) {
				return c.AddKey(key, p, k.kdf(c.Header.Version, c.Header.Digest.Hash))
			})
		},
	}
	old.flags(cmd, "")
	fresh.flags(cmd, "new-")
	k.flags(cmd)
	addJSON(cmd)
	return cmd
}

func luksChangeKeyCommand() *cobra.Command {
	old, fresh := &secret{what: "passphrase to be changed"}, &secret{what: "new passphrase", confirm: true}
	var k kdfFlags
	slot := luks.AnySlot
	cmd := &cobra.Command{
		Use:   "change-key DISK",
		Short: "Replace a passphrase by a new one",
		Long: `Replace a passphrase by a new one. The new one is on the disk before the old one is
removed, so a free key slot is needed; with version 1 the new passphrase stays there.`,
		Example: `  udm luks change-key disk.img`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeKeys(cmd, args[0], old, fresh, slot, func(c *luks.Container, key *luks.Key, p []byte) (int, error) {
				return c.ChangeKey(key, p, k.kdf(c.Header.Version, c.Header.Digest.Hash))
			})
		},
	}
	old.flags(cmd, "")
	fresh.flags(cmd, "new-")
	k.flags(cmd)
	addJSON(cmd)
	cmd.Flags().IntVar(&slot, "slot", slot, "the key slot; -1: the slot that the passphrase opens")
	return cmd
}

// changeKeys opens a disk with one passphrase and calls change with another.
func changeKeys(cmd *cobra.Command, disk string, old, fresh *secret, slot int, change func(*luks.Container, *luks.Key, []byte) (int, error)) error {
	return withContainer(cmd, disk, true, func(c *luks.Container) error {
		key, err := unlock(cmd, c, old, slot)
		if err != nil {
			return err
		}
		defer key.Close()
		p, err := fresh.read(cmd)
		if err != nil {
			return err
		}
		defer clear(p)
		n, err := change(c, key, p)
		if err == nil {
			err = say(cmd, madeSlot{n}, "key slot %d\n", n)
		}
		return err
	})
}

// madeSlot is a slot with a new key in JSON output.
type madeSlot struct {
	Slot int `json:"keySlot"`
}

// unlock reads a passphrase and opens c with it.
func unlock(cmd *cobra.Command, c *luks.Container, s *secret, slot int) (*luks.Key, error) {
	p, err := s.read(cmd)
	if err != nil {
		return nil, err
	}
	defer clear(p)
	return c.Unlock(p, slot)
}

func luksRemoveKeyCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove-key DISK SLOT",
		Short: "Destroy a key slot, so that its passphrase no longer opens the disk",
		Long: `Destroy a key slot, so that its passphrase no longer opens the disk. "udm luks dump"
lists the slots. Backups of the header still contain the slot.`,
		Example: `  udm luks remove-key disk.img 1`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			slot, err := slotOf(args[1])
			if err != nil {
				return err
			}
			return withContainer(cmd, args[0], true, func(c *luks.Container) error { return c.RemoveKey(slot, force) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "even if it is the last one; then nobody can open the disk")
	return cmd
}
