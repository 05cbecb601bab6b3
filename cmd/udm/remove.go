package main

import (
	"errors"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func removeCommand() *cobra.Command {
	var deferred bool
	cmd := &cobra.Command{
		Use:     "remove DEVICE...",
		Aliases: []string{"rm"},
		Short:   "Remove devices; the disks below them stay",
		Example: `  udm remove disk
  udm remove --deferred disk     # when its last client has gone`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			var errs []error
			for _, name := range args {
				err := client.Remove(cmd.Context(), ctl.Remove{Ref: ctl.Ref{Name: name}, Deferred: deferred})
				if err != nil {
					errs = append(errs, orKnown(cmd, client, name, err))
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&deferred, "deferred", false, "an open device goes when it is closed")
	return cmd
}
