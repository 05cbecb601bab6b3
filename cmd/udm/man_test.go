package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command that users see has a man page, and no page tells of the machine that
// it was made on.
func TestManPages(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	t.Setenv("UDM_ROOT", home)
	dir := filepath.Join(t.TempDir(), "man")
	root := rootCommand()
	if err := writeMan(root, dir); err != nil {
		t.Fatal(err)
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		text, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(text), home) {
			t.Errorf("the page of %s names %s", c.CommandPath(), home)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}
