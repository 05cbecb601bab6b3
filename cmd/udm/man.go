package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes man pages: for packagers, and for make man and make install.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "Write the man pages of all commands into a directory",
		Example: `  udm man /usr/local/share/man/man1`,
		Args:    cobra.ExactArgs(1),
		Hidden:  true,
		RunE:    func(cmd *cobra.Command, args []string) error { return writeMan(cmd.Root(), args[0]) },
	}
}

// writeMan writes the pages. They do not depend on the user or the time.
func writeMan(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root.DisableAutoGenTag = true
	root.PersistentFlags().Lookup("root").DefValue = "/var/lib/udm of root, ~/.local/state/udm of others"
	h := &doc.GenManHeader{Title: "UDM", Section: "1", Source: "udm", Manual: "udm"}
	if t, err := time.Parse(time.RFC3339, thisBuild().Time); err == nil {
		h.Date = &t // of the commit
	}
	return doc.GenManTree(root, h, dir)
}
