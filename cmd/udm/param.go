package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"udm/ctl"
	"udm/dm"
)

func paramCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "param [NAME[=VALUE]]...",
		Short: "Show or set the parameters of target modules",
		Long: `A parameter is a number that applies to all targets of a module, at once. Linux has
the same parameters in /sys/module/MODULE/parameters. A value lasts until the daemon
ends. "udm daemon --param" sets a parameter when the daemon starts.`,
		Example: `  udm param
  udm param dm_snapshot.snapshot_cow_threshold
  udm param dm_thin_pool.no_space_timeout=0`,
		ValidArgsFunction: completeParams,
		RunE:              runParam,
	}
	addJSON(cmd)
	return cmd
}

func runParam(cmd *cobra.Command, args []string) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	var names []string
	for _, arg := range args {
		name, text, set := strings.Cut(arg, "=")
		if !set {
			names = append(names, name)
			continue
		}
		value, err := paramValue(name, text)
		if err != nil {
			return err
		}
		if _, err := client.SetParam(cmd.Context(), ctl.SetParam{Name: name, Value: value}); err != nil {
			return err
		}
	}
	if len(args) > 0 && len(names) == 0 {
		return nil
	}
	ps, err := client.Params(cmd.Context())
	if err == nil {
		ps, err = chosen(ps, names)
	}
	if err != nil {
		return err
	}
	return printParams(cmd, ps, len(names) > 0)
}

// chosen returns the parameters with the names, or all if there are no names.
func chosen(ps []ctl.Param, names []string) ([]ctl.Param, error) {
	if len(names) == 0 {
		return ps, nil
	}
	var out []ctl.Param
	for _, name := range names {
		i := slices.IndexFunc(ps, func(p ctl.Param) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no parameter named %q; udm param lists the parameters", name)
		}
		out = append(out, ps[i])
	}
	return out, nil
}

// printParams prints parameters, or their values alone.
func printParams(cmd *cobra.Command, ps []ctl.Param, values bool) error {
	if wantsJSON(cmd) {
		return printJSON(cmd, ps)
	}
	rows := [][]string{{"NAME", "VALUE", ""}}
	for _, p := range ps {
		if values {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), p.Value); err != nil {
				return err
			}
		}
		rows = append(rows, []string{p.Name, fmt.Sprint(p.Value), p.Doc})
	}
	if values {
		return nil
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func paramValue(name, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("%s takes a number from 0 to 4294967295, not %q", name, text)
	}
	return uint32(n), nil
}

// addParams adds the daemon's option --param.
func addParams(fl *pflag.FlagSet, to *map[string]string) {
	fl.StringToStringVar(to, "param", nil, "set a parameter of a target module; udm param lists the parameters")
}

func setParams(types []*dm.Type, params map[string]string) error {
	for name, text := range params {
		p, err := dm.FindParam(dm.Params(types...), name)
		if err != nil {
			return fmt.Errorf("--param %s=%s: %w", name, text, err)
		}
		value, err := paramValue(name, text)
		if err != nil {
			return fmt.Errorf("--param: %w", err)
		}
		p.Set(value)
	}
	return nil
}

func completeParams(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, err := clientOf(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	ps, _ := client.Params(cmd.Context()) // without a daemon there is nothing to offer
	var names []string
	for _, p := range ps {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
