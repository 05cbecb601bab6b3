//go:build linux

// Command agent runs conformance scripts on the kernel's device mapper. It is started by the harness inside the booted
// kernel and writes one golden file per script.
//
//	agent [-disks DIR] OUT SCRIPTDIR [NAME…]
//
// With -disks the disks begin with what is in DIR and are stored there at the end of a script.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"udm/test/kernel/conform"
)

func main() {
	disks := flag.String("disks", "", "where disks are kept")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: agent [-disks DIR] OUT SCRIPTDIR [NAME…]")
		os.Exit(2)
	}
	if err := run(*disks, flag.Arg(0), flag.Arg(1), flag.Args()[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs the named scripts, or all.
func run(disks, out, dir string, names []string) error {
	scripts, err := conform.ReadDir(dir)
	if err != nil {
		return err
	}
	host, err := newHost(disks)
	if err != nil {
		return err
	}
	for _, s := range scripts {
		if len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		answers, err := conform.Run(host, s)
		if err != nil {
			return err
		}
		text := conform.Golden(release(), s, answers)
		if err := os.WriteFile(filepath.Join(out, s.Name+".txt"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// release is the version of the running kernel.
func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
