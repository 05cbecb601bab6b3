package main

import (
	"github.com/spf13/cobra"

	"udm/ctl"
)

func loadCommand() *cobra.Command {
	var table string
	var readOnly bool
	cmd := &cobra.Command{
		Use:   "load DEVICE [FILE]",
		Short: "Replace a device's table while it is in use",
		Long: `load replaces the table of a device. I/O in flight finishes on the old table. New
I/O waits for the new table. No I/O fails. If the new table is refused, the old one
stays.`,
		Example:           `  udm load disk --table "0 4194304 linear /srv/bigger.img 0"`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := tableText(cmd, table, args[1:])
			if err != nil {
				return err
			}
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			d, err := replaceTable(cmd, client, ctl.Load{Ref: ctl.Ref{Name: args[0]}, Table: text, ReadOnly: readOnly})
			if err != nil {
				return explain(args[0], found(args[0], err))
			}
			return printDevice(cmd, d)
		},
	}
	cmd.Flags().StringVar(&table, "table", "", "the table")
	cmd.Flags().BoolVarP(&readOnly, "readonly", "r", false, "make the device read-only")
	addJSON(cmd)
	return cmd
}

// replaceTable loads a table and makes it live.
func replaceTable(cmd *cobra.Command, client *ctl.Client, r ctl.Load) (ctl.Device, error) {
	if d, err := client.Load(cmd.Context(), r); err != nil {
		return d, err
	}
	return client.Resume(cmd.Context(), ctl.Suspend{Ref: r.Ref})
}
