package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is a binary's information about how it was built. The go command records it
// if git is installed, also in shallow clones.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"` // none: built outside a repository
	Time     string `json:"time,omitempty"`   // of the commit
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go release that udm was built from",
		Example: `  udm version
  udm version --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := thisBuild()
			if wantsJSON(cmd) {
				return printJSON(cmd, b)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "udm", b)
			return err
		},
	}
	addJSON(cmd)
	return cmd
}

// thisBuild is the build of the running binary.
func thisBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	return buildFrom(info)
}

func buildFrom(info *debug.BuildInfo) build {
	b := build{Version: cmp.Or(info.Main.Version, "(devel)"), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	commit := cmp.Or(b.Commit, "unknown")
	if b.Modified {
		commit += " with changes"
	}
	return fmt.Sprintf("%s (commit %s, %s %s)", b.Version, commit, b.Go, b.Platform)
}
