package main

import (
	"errors"

	"github.com/spf13/cobra"

	"udm"
	"udm/blk"
	"udm/luks"
)

func luksOpenCommand() *cobra.Command {
	var o luksOpen
	o.secret.what = "passphrase"
	cmd := &cobra.Command{
		Use:   "open DISK",
		Short: "Serve a decrypted disk over NBD until this command ends",
		Long: `Serve a decrypted disk over NBD on a Unix socket until this command is interrupted.
The key is only in this process: on no disk and in no daemon. With --test nothing is
served; the command only checks that the passphrase opens the disk.`,
		Example: `  udm luks open disk.img --socket disk.sock &
  nbdcopy 'nbd+unix:///?socket=disk.sock' plain.img`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.secret.flags(cmd, "")
	f := cmd.Flags()
	f.StringVar(&o.header, "header", "", "disk with the detached header")
	f.StringVar(&o.socket, "socket", "", "path of the socket to create")
	f.StringVar(&o.name, "name", "disk", "name of the NBD export")
	f.IntVar(&o.slot, "slot", luks.AnySlot, "the key slot to use; -1: any")
	f.BoolVar(&o.readOnly, "read-only", false, "open the disk read-only")
	f.BoolVar(&o.test, "test", false, "only check the passphrase")
	addJSON(cmd)
	return cmd
}

type luksOpen struct {
	secret               secret
	header, socket, name string
	slot                 int
	readOnly, test       bool
}

// served is the address of a served disk in JSON output.
type served struct {
	URI string `json:"uri"`
}

func (o *luksOpen) run(cmd *cobra.Command, disk string) error {
	if o.socket == "" && !o.test {
		return errors.New("--socket or --test is missing")
	}
	table, err := o.table(cmd, disk)
	if err != nil || o.test {
		return err
	}
	s := udm.New()
	create := s.Create
	if o.readOnly {
		create = s.CreateReadOnly
	}
	return serveUntilDone(cmd, s, o.name, o.socket, func() error {
		_, err := create(o.name, table)
		return err
	})
}

// serveUntilDone makes a disk of a stack and serves it until the command is interrupted.
func serveUntilDone(cmd *cobra.Command, s *udm.Stack, name, socket string, create func() error) error {
	err := create()
	if err == nil {
		err = s.ListenNBD(socket)
	}
	if err == nil {
		uri := "nbd+unix:///" + name + "?socket=" + socket
		err = say(cmd, served{uri}, "%s\n", uri)
	}
	if err == nil {
		<-cmd.Context().Done()
	}
	return errors.Join(err, s.Close())
}

// table is the table of the decrypted disk, which contains the key.
func (o *luksOpen) table(cmd *cobra.Command, disk string) (table string, err error) {
	header := o.header
	if header == "" {
		header = disk
	}
	name, err := diskName(disk)
	if err != nil {
		return "", err
	}
	var sectors uint64
	if err := withDisk(disk, false, func(d blk.Device) error { sectors = d.Limits().Size; return nil }); err != nil {
		return "", err
	}
	err = withContainer(cmd, header, false, func(c *luks.Container) error {
		key, err := unlock(cmd, c, &o.secret, o.slot)
		if err != nil {
			return err
		}
		defer key.Close()
		line, size, err := c.Line(key, name, sectors)
		if err == nil {
			table = udm.Table(udm.Line(0, size, line.Target(), line))
		}
		return err
	})
	return table, err
}
