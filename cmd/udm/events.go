package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print events of devices as they happen",
		Long: `events prints a line when a device is created, loaded, suspended, resumed, renamed
or removed. It also prints a line when a target raises an event, for example when a
pool fills up. It runs until Ctrl-C. With --json, each line is an object.`,
		Example: `  udm events
  udm events --json | jq -r 'select(.kind == "event").name'`,
		Args: cobra.NoArgs,
		RunE: runEvents,
	}
	addJSON(cmd)
	return cmd
}

func runEvents(cmd *cobra.Command, _ []string) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	events, err := client.Events(cmd.Context())
	if err != nil {
		return err
	}
	lines := json.NewEncoder(cmd.OutOrStdout())
	for e, err := range events {
		switch {
		case err != nil:
			return err
		case wantsJSON(cmd):
			err = lines.Encode(e)
		default:
			_, err = fmt.Fprintln(cmd.OutOrStdout(), eventLine(e))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func eventLine(e ctl.Event) string {
	switch e.Kind {
	case ctl.EventsLost:
		return fmt.Sprintf("%d events lost", e.Lost)
	case ctl.EventTable:
		return fmt.Sprintf("%s %s %d", e.Name, e.Kind, e.Event)
	}
	return fmt.Sprintf("%s %s", e.Name, e.Kind)
}
