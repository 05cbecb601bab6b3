package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// eachCommand calls f with udm and all its commands but those that cobra adds.
func eachCommand(f func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return
		}
		f(c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand())
}

// refusal is what udm prints for a command line that is wrong; "": it is not.
func refusal(args ...string) string {
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(new(bytes.Buffer))
	var usage *usageError
	if err := cmd.Execute(); !errors.As(err, &usage) {
		return ""
	}
	var b bytes.Buffer
	usage.print(&b)
	return b.String()
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ line, says, usage string }{
		{"pool create p 100M", `unexpected operand "100M"; did you mean udm pool create p --size 100M?`, "udm pool create POOL --size SIZE"},
		{"pool create p", "--size is missing", "udm pool create POOL --size SIZE"},
		{"pool create", "POOL is missing", "udm pool create POOL --size SIZE"},
		{"volume create", "POOL and NAME are missing", "udm volume create POOL NAME --size SIZE"},
		{"merge a b", `unexpected operand "b"`, "udm merge NAME"},
		{"lss", `udm has no command "lss"; did you mean udm ls?`, "udm COMMAND"},
		{"snap", `udm has no command "snap"; did you mean udm snapshot?`, "udm COMMAND"},
		{"pool crate p", `udm pool has no command "crate"; did you mean udm pool create?`, "udm pool COMMAND"},
		{"orphans ls", `udm orphans has no command "ls"`, "udm orphans COMMAND"},
		{"frobnicate", `udm has no command "frobnicate"` + "\n", "udm COMMAND"},
		{"ls --jsno", "unknown option --jsno; did you mean --json?", "udm ls [PREFIX]"},
		{"ls -x", "unknown option -x\n", "udm ls [PREFIX]"},
		{"resize a --size 3Q", `"3Q" is not a size`, "udm resize NAME --size SIZE"},
		{"thin delta m", "--thin1 and --thin2 are missing", "udm thin delta METADATA --thin1 ID --thin2 ID"},
	} {
		got := refusal(strings.Fields(c.line)...)
		if !strings.HasPrefix(got, "udm: ") || !strings.Contains(got, c.says) || !strings.Contains(got, "\nusage: "+c.usage+"\n") {
			t.Errorf("udm %s:\n%s", c.line, got)
		}
	}
	if code := run(t.Context(), []string{"pool", "create", "p", "100M"}); code != usageExit {
		t.Errorf("exit code %d", code)
	}
}

// The usage line of a command names the operands that it takes.
func TestUsageLines(t *testing.T) {
	eachCommand(func(c *cobra.Command) {
		if c.Args == nil || c.HasSubCommands() || c.Hidden {
			return
		}
		least, most := 0, 0
		for _, op := range operandsOf(c.Use) {
			if !op.optional {
				least++
			}
			if most++; op.many {
				most = 99
			}
		}
		for n := range 5 {
			err := c.Args(c, slices.Repeat([]string{"word"}, n))
			if fits := least <= n && n <= most; fits != (err == nil) {
				t.Errorf("%s with %d operands: %v", c.UseLine(), n, err)
			}
		}
	})
}

// Every command that prints something can print JSON.
func TestJSONEverywhere(t *testing.T) {
	without := map[string]string{
		"udm daemon": "logs", "udm keep": "logs", "udm dmsetup": "prints what dmsetup does", "udm quickstart": "shows people around", "udm man": "writes files",
		"udm metrics": "prints OpenMetrics", "udm support-bundle": "writes a file", "udm cp": "silent", "udm send": "writes a stream", "udm remove": "silent", "udm orphans rm": "silent", "udm pool rm": "silent", "udm volume rm": "silent",
		"udm detach": "silent", "udm unexport": "silent", "udm unmount": "silent", "udm thin restore": "silent", "udm thin repair": "silent",
		"udm luks format": "silent", "udm luks backup": "silent", "udm luks restore": "silent", "udm luks repair": "silent", "udm luks remove-key": "silent", "udm key set": "silent", "udm key remove": "silent",
		"udm archive init": "silent", "udm archive key": "writes a file", "udm archive remove": "silent",
		"udm cache dump": "prints XML", "udm cache repair": "silent", "udm cache restore": "silent", "udm cache writeback": "silent",
		"udm era dump": "prints XML", "udm era invalidate": "prints XML", "udm era restore": "silent",
		"udm verity verify":   "logs",
		"udm " + attachHelper: "speaks to the daemon",
		"udm run":             "the output is the command's",
		"udm " + runStarter:   "becomes the command",
	}
	eachCommand(func(c *cobra.Command) {
		why, exempt := without[c.CommandPath()]
		delete(without, c.CommandPath())
		switch json := c.Flags().Lookup("json") != nil; {
		case c.HasSubCommands() && c.Args == nil, c.Name() == "udm", c.HasSubCommands() && !json:
		case json == exempt:
			t.Errorf("%s: JSON %v; %s", c.CommandPath(), json, why)
		}
	})
	for name := range without {
		t.Errorf("there is no command %q", name)
	}
}
