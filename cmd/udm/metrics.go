package main

import (
	"github.com/spf13/cobra"
)

func metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print metrics of the devices in the OpenMetrics format",
		Long: `metrics prints the metrics that the daemon exports to Prometheus: I/O, bytes, errors and
latencies of every device, the usage of pools and stores, operations, remote disks,
clients, and the daemon's own memory. Devices count their I/O from the first query on.
udm daemon --metrics ADDRESS serves the same metrics over HTTP, with /healthz and /readyz.`,
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
