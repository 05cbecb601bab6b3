package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command says what it does in a line and shows how to use it.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: bad short help %q", c.CommandPath(), c.Short)
		}
		if !strings.Contains(c.Example, "udm") {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand())
}
