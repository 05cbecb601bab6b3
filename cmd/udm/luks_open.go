package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"udm"
	"udm/blk"
	"udm/dm"
	"udm/env"
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
	t, err := o.tables(cmd, disk)
	if err != nil || o.test {
		return err
	}
	s := udm.New()
	return serveUntilDone(cmd, s, o.name, o.socket, func() error { return t.create(s, o.name, o.readOnly) })
}

// luksTables are the tables of a decrypted disk, which contain the key.
type luksTables struct {
	tags string // of the integrity device below, which the table names; "": there is none
	disk string
}

// create makes the disk. The integrity device is not served.
func (t *luksTables) create(s *udm.Stack, name string, readOnly bool) error {
	create := s.Create
	if readOnly {
		create = s.CreateReadOnly
	}
	if t.tags != "" {
		if err := createBelow(s, tagsName(name), t.tags, readOnly); err != nil {
			return err
		}
	}
	_, err := create(name, t.disk)
	return err
}

// tagsName is cryptsetup's name for the integrity device.
func tagsName(name string) string { return name + "_dif" }

// createBelow makes a device that only tables of the stack use.
func createBelow(s *udm.Stack, name, table string, readOnly bool) error {
	specs, err := dm.ParseTable(table)
	if err != nil {
		return err
	}
	d, err := s.Control().Create(name, "", -1)
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: !readOnly})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	return err
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

func (o *luksOpen) tables(cmd *cobra.Command, disk string) (t luksTables, err error) {
	header := o.header
	if header == "" {
		header = disk
	}
	var c *luks.Container
	var key *luks.Key
	err = withContainer(cmd, header, false, func(open *luks.Container) error {
		c = open
		key, err = unlock(cmd, c, &o.secret, o.slot)
		return err
	})
	if err != nil {
		return t, err
	}
	defer key.Close()
	return tablesOf(c, key, disk, o.name, o.readOnly)
}

// tablesOf are the tables of a disk that is called name when it is decrypted.
func tablesOf(c *luks.Container, key *luks.Key, disk, name string, readOnly bool) (t luksTables, err error) {
	device, err := diskName(disk)
	if err != nil {
		return t, err
	}
	var sectors uint64
	err = withDisk(disk, false, func(d blk.Device) error {
		sectors = d.Limits().Size
		if c.Header.Segment.Integrity == "" {
			return nil
		}
		line, n, err := c.IntegrityLine(env.Real(), d, device)
		if err != nil {
			return err
		}
		if readOnly {
			line.Mode = "R"
		}
		t.tags, sectors, device = udm.Table(udm.Line(0, n, line.Target(), line)), n, "/dev/mapper/"+tagsName(name)
		return nil
	})
	if err != nil {
		return t, err
	}
	line, size, err := c.Line(key, device, sectors)
	if err == nil {
		t.disk = udm.Table(udm.Line(0, size, line.Target(), line))
	}
	return t, err
}
