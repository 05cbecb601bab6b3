package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/ctl"
)

// withMetadata opens the metadata of a pool for reading. word is a file or block
// device, or else the name of a pool of the daemon.
func withMetadata(cmd *cobra.Command, word string, f func(blk.Device) error) error {
	path, err := metadataOf(cmd, word)
	if err != nil {
		return err
	}
	return withDevice(path, false, f)
}

func metadataOf(cmd *cobra.Command, word string) (string, error) {
	_, missing := os.Stat(word)
	if missing == nil || strings.Contains(word, "/") {
		return word, nil
	}
	client, err := clientOf(cmd)
	if err != nil {
		return "", err
	}
	defer client.Close()
	d, err := client.Device(cmd.Context(), ctl.Query{Ref: ctl.Ref{Name: word}, With: []ctl.With{ctl.WithTable, ctl.WithDeps}})
	if err != nil || len(d.Table) != 1 || d.Table[0].Target != "thin-pool" {
		return "", fmt.Errorf("%w, and no daemon has a pool of that name", missing)
	}
	number := strings.Fields(d.Table[0].Params)[0]
	for _, dep := range d.Deps {
		if dep.Number.String() == number && dep.Source != "" {
			return dep.Source, nil
		}
	}
	return "", fmt.Errorf("the metadata of %s is not a whole file; give its device", word)
}

// thinID is a volume on the command line: its number in the pool, or its name in the
// daemon.
type thinID struct{ word string }

func (t *thinID) String() string     { return t.word }
func (t *thinID) Set(s string) error { t.word = s; return nil }
func (t *thinID) Type() string       { return "ID" }

// id returns the volume's number.
func (t *thinID) id(cmd *cobra.Command) (uint32, error) {
	if n, err := strconv.ParseUint(t.word, 10, 32); err == nil {
		return uint32(n), nil
	}
	client, err := clientOf(cmd)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	all, err := client.Objects(cmd.Context())
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of a volume, and names cannot be looked up: %w", t.word, err)
	}
	for _, o := range all {
		if o.Name == t.word && o.ID != nil {
			return *o.ID, nil
		}
	}
	return 0, fmt.Errorf("%q is neither a number nor the name of a volume; udm volume ls lists the volumes", t.word)
}
