package main

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Keys of encrypted devices that tables name",
		Long: `The daemon has a key store, like the kernel's keyring. A table of the target crypt then
names its key, :BYTES:logon:NAME, and does not contain it. Keys are only in the memory of
the daemon, which locks it where the system allows that; nobody can read them from there. A
daemon that replaces another one takes its keys over. After a restart, devices wait until
their keys are set again.`,
		Example: `  udm key set disk1 --key-file /run/keys/disk1
  udm create secret --table "0 2097152 crypt aes-xts-plain64 :64:logon:disk1 0 /srv/a.img 0"`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(keySetCommand(), keyLsCommand(), keyRemoveCommand())
	return cmd
}

// keyType adds the option for the type of a key.
func keyType(cmd *cobra.Command, n *ctl.KeyName) {
	cmd.Flags().StringVar(&n.Type, "type", "logon", "type of the key, logon or user: a word in the table")
}

func keySetCommand() *cobra.Command {
	var k ctl.SetKey
	var digits bool
	s := &secret{what: "key"}
	cmd := &cobra.Command{
		Use:     "set NAME",
		Short:   "Store a key in the daemon, in place of an older one",
		Example: `  udm key set disk1 --key-file /run/keys/disk1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.read(cmd)
			if err != nil {
				return err
			}
			defer clear(p)
			k.Description, k.Key = args[0], p
			if digits {
				if k.Key, err = hex.DecodeString(strings.TrimSpace(string(p))); err != nil {
					return fmt.Errorf("the key is not in hexadecimal digits; leave --hex out if the file holds the key itself")
				}
				defer clear(k.Key)
			}
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			return client.SetKey(cmd.Context(), k)
		},
	}
	s.flags(cmd, "")
	keyType(cmd, &k.KeyName)
	cmd.Flags().BoolVar(&digits, "hex", false, "the key is written in hexadecimal digits")
	return cmd
}

func keyLsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the names of the keys in the daemon",
		Example: `  udm key ls`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			keys, err := client.Keys(cmd.Context())
			if err != nil {
				return err
			}
			if wantsJSON(cmd) {
				return printJSON(cmd, keys)
			}
			rows := [][]string{{"NAME", "TYPE", "BITS"}}
			for _, k := range keys {
				rows = append(rows, []string{k.Description, k.Type, fmt.Sprint(k.Size * 8)})
			}
			return printTable(cmd.OutOrStdout(), rows)
		},
	}
	addJSON(cmd)
	return cmd
}

func keyRemoveCommand() *cobra.Command {
	var n ctl.KeyName
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Overwrite and remove a key in the daemon",
		Long: `Overwrite and remove a key in the daemon. Devices that use it go on; after a restart of
the daemon they wait for it. To make a device forget its key, suspend it and send it the
message "key wipe".`,
		Example: `  udm key remove disk1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			n.Description = args[0]
			return client.RemoveKey(cmd.Context(), n)
		},
	}
	keyType(cmd, &n)
	return cmd
}
