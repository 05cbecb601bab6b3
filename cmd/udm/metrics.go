package main

import (
	"github.com/spf13/cobra"
)

func metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print figures about the devices in the format of OpenMetrics",
		Long: `metrics prints what the daemon tells Prometheus: I/O, bytes, errors and latencies of
every device, how full pools and stores are, operations, remote disks, clients, and the
daemon's own memory. Devices count their I/O from the first time that it is asked for.
udm daemon --metrics ADDRESS serves the same text, with /healthz and /readyz.`,
		Example: `  udm metrics | grep '^udm_pool_'
  udm daemon --metrics localhost:9254`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			return client.Metrics(cmd.Context(), cmd.OutOrStdout())
		},
	}
}
