package main

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/ctl/server/web"
)

func webCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Print the address of the daemon's page",
		Long: `web prints the address at which a browser opens the page of a daemon that runs with --web:
devices and what stands on what, pools, latencies, throughput, clients, limits, operations,
and problems with the commands that fix them. The part of the address behind # is the
token; whoever has it sees the page. A daemon on another machine is reached through ssh:
ssh -L 9255:localhost:9255 HOST, and then the same address.`,
		Example: `  udm daemon --web localhost:9255 &
  udm web
  xdg-open "$(udm web)"`,
		Args: cobra.NoArgs,
		RunE: runWeb,
	}
	addJSON(cmd)
	return cmd
}

func runWeb(cmd *cobra.Command, _ []string) error {
	root, err := rootOf(cmd)
	if err != nil {
		return err
	}
	client := ctl.NewClient(root)
	defer client.Close()
	ends, err := client.FrontEnds(cmd.Context())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ends, func(f ctl.FrontEnd) bool { return f.Name == ctl.WebFrontEnd })
	if i < 0 || len(ends[i].Addresses) == 0 {
		return errors.New("the daemon serves no page; start it with --web localhost:9255")
	}
	token, err := web.ReadToken(root)
	if err != nil {
		return err
	}
	address := fmt.Sprintf("http://%s/#%s", reachable(ends[i].Addresses[0]), token)
	return say(cmd, map[string]string{"address": address}, "%s\n", address)
}

// reachable is an address that a browser of this machine can open.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return address
}
