//go:build linux

// Command agent runs conformance scripts on the kernel's device mapper. It is started by the harness inside the booted
// kernel and writes one golden file per script.
//
//	agent OUT SCRIPTDIR [NAME…]
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"udm/test/kernel/conform"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: agent OUT SCRIPTDIR [NAME…]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs the named scripts, or all.
func run(out, dir string, names []string) error {
	scripts, err := conform.ReadDir(dir)
	if err != nil {
		return err
	}
	host, err := newHost()
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
