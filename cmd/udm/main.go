// Command udm is the Linux device mapper as an ordinary program: see README.md.
//
// If it is called by the name dmsetup, through a link, it behaves as dmsetup; if by
// the name of a program of thin-provisioning-tools, such as thin_check or era_check, as
// that program.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"udm/cmd/udm/dmsetup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	if name == "dmsetup" {
		os.Exit(dmsetup.Run(ctx, defaultRoot(), os.Args[1:], streams()))
	}
	if _, ok := thinPrograms[name]; ok {
		os.Exit(runThinProgram(ctx, name, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(run(ctx, os.Args[1:]))
}

// exitCode is an error that has been reported already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run runs a command line and returns its exit code. An error is printed as one line;
// after a usage error the usage follows.
func run(ctx context.Context, args []string) int {
	cmd := rootCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var code exitCode
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		usage.print(os.Stderr)
		return usageExit
	}
	fmt.Fprintln(os.Stderr, "udm:", oneLine(err))
	return 1
}

// oneLine is the text of an error in one line, without repetitions of joined errors.
func oneLine(err error) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
