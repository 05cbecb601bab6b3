package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"udm/blk/leaf"
	"udm/ctl"
	"udm/dm"
)

func createCommand() *cobra.Command {
	var table, uuid string
	var readOnly bool
	cmd := &cobra.Command{
		Use:   "create NAME [FILE]",
		Short: "Create a device from a table",
		Long: `create creates a device from a table. The table is given with --table, in a file,
or on standard input. It has a line for each target: START LENGTH TYPE PARAMETERS.
START and LENGTH are in sectors of 512 bytes. "udm targets TYPE" explains the
parameters. If any step fails, no device is created.`,
		Example: `  udm create disk --table "0 2097152 linear /srv/a.img 0"
  udm create both < table.txt
  udm create scratch --table "0 2097152 linear mem:1G 0"`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := tableText(cmd, table, args[1:])
			if err != nil {
				return err
			}
			return createDevice(cmd, ctl.Create{Name: args[0], UUID: uuid, Table: text, ReadOnly: readOnly})
		},
	}
	cmd.Flags().StringVar(&table, "table", "", "the table")
	cmd.Flags().StringVarP(&uuid, "uuid", "u", "", "unique identifier of the device")
	cmd.Flags().BoolVarP(&readOnly, "readonly", "r", false, "create a read-only device")
	addJSON(cmd)
	return cmd
}

// tableText returns the table that the command line gives, or reads it.
func tableText(cmd *cobra.Command, table string, files []string) (string, error) {
	switch {
	case table != "" && len(files) > 0:
		return "", usagef(cmd, "--table and a file cannot both be given")
	case table != "":
	case len(files) > 0:
		text, err := os.ReadFile(files[0])
		if err != nil {
			return "", err
		}
		table = string(text)
	default:
		text, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return "", err
		}
		table = string(text)
	}
	specs, err := dm.ParseTable(table)
	if err == nil && len(specs) == 0 {
		err = errors.New("the table is empty")
	}
	if err != nil {
		return "", fmt.Errorf("%s; a line is START LENGTH TYPE PARAMETERS", strings.TrimSuffix(err.Error(), " ."))
	}
	return table, nil
}

func createDevice(cmd *cobra.Command, r ctl.Create) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	d, err := client.Create(cmd.Context(), r)
	if err != nil {
		return explain(r.Name, err)
	}
	return printDevice(cmd, d)
}

// printDevice prints a new device as JSON if --json is given, else nothing.
func printDevice(cmd *cobra.Command, d ctl.Device) error {
	if wantsJSON(cmd) {
		return printJSON(cmd, d)
	}
	return nil
}

// found turns the error for a missing device into one that names it.
func found(name string, err error) error {
	if errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("there is no device named %q; udm ls lists the devices", name)
	}
	return err
}

// explain adds the device's name and a remedy to the error of a command.
func explain(name string, err error) error {
	var e *ctl.Error
	if !errors.As(err, &e) {
		return err
	}
	remedy := ""
	switch {
	case e.Step == "create" && errors.Is(err, syscall.EBUSY):
		remedy = "; choose another name, or rename the device: udm rename " + name + " OTHER"
	case strings.HasSuffix(e.Reason, "unknown target type: "+syscall.EINVAL.Error()):
		remedy = "; udm targets lists the types"
	case errors.Is(err, syscall.ENODEV) && strings.Contains(e.Reason, "not an absolute path"):
		remedy = "; a device in a table is an absolute path, /dev/mapper/NAME or one of " + leaf.Syntax()
	case e.Step == "" && errors.Is(err, syscall.EBUSY):
		remedy = "; udm status --clients and udm ls show what uses it"
	}
	return fmt.Errorf("%s: %w%s", name, err, remedy)
}
