package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func bundleCommand() *cobra.Command {
	var log string
	cmd := &cobra.Command{
		Use:   "support-bundle FILE",
		Short: "Collect the information needed to analyze a problem in a tar.gz file",
		Long: `support-bundle writes a new FILE with versions, problems, devices with their tables and
states, objects, operations, front ends, limits, metrics, the output of udm doctor, and the log
given with --log. It contains no data of devices, and keys in tables are replaced by
zeroes. It does contain the names of devices and files and the addresses of clients.
Queries that fail are listed in errors.txt.`,
		Example: `  udm support-bundle udm.tar.gz
  udm support-bundle udm.tar.gz --log /var/log/udm.log`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			err = writeBundle(cmd.Context(), f, client, log)
			return errors.Join(err, f.Close())
		},
	}
	cmd.Flags().StringVar(&log, "log", "", "the daemon's log file to include")
	return cmd
}

// bundle is a tar archive being written, with the errors of failed queries.
type bundle struct {
	tar    *tar.Writer
	errors bytes.Buffer
}

func writeBundle(ctx context.Context, w io.Writer, c *ctl.Client, log string) error {
	zip := gzip.NewWriter(w)
	b := &bundle{tar: tar.NewWriter(zip)}
	all := ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithStatus, ctl.WithDeps}, Noflush: true}
	err := errors.Join(
		b.json("version.json", func() (any, error) { return thisBuild(), nil }),
		b.json("daemon.json", func() (any, error) { return c.Version(ctx) }),
		b.json("devices.json", func() (any, error) { return c.List(ctx, all) }),
		b.json("problems.json", func() (any, error) { return c.Problems(ctx) }),
		b.json("stats.json", func() (any, error) { return c.Stats(ctx) }),
		b.json("limits.json", func() (any, error) { return c.Limits(ctx) }),
		b.json("objects.json", func() (any, error) { return c.Objects(ctx) }),
		b.json("operations.json", func() (any, error) { return c.Operations(ctx) }),
		b.json("front-ends.json", func() (any, error) { return c.FrontEnds(ctx) }),
		b.json("params.json", func() (any, error) { return c.Params(ctx) }),
		b.json("doctor.json", func() (any, error) { return thisMachine().examine(), nil }),
		b.text("metrics.txt", func(w io.Writer) error { return c.Metrics(ctx, w) }),
	)
	if log != "" {
		err = errors.Join(err, b.text("daemon.log", func(w io.Writer) error { return copyFile(w, log) }))
	}
	if b.errors.Len() > 0 {
		err = errors.Join(err, b.add("errors.txt", b.errors.Bytes()))
	}
	return errors.Join(err, b.tar.Close(), zip.Close())
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// json adds the result of a query as JSON.
func (b *bundle) json(name string, ask func() (any, error)) error {
	return b.text(name, func(w io.Writer) error {
		v, err := ask()
		if err != nil {
			return err
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	})
}

// text adds the output of write, or records its error.
func (b *bundle) text(name string, write func(io.Writer) error) error {
	var text bytes.Buffer
	if err := write(&text); err != nil {
		fmt.Fprintf(&b.errors, "%s: %v\n", name, err)
		return nil
	}
	return b.add(name, text.Bytes())
}

func (b *bundle) add(name string, text []byte) error {
	h := &tar.Header{Name: "udm/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}
	if err := b.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := b.tar.Write(text)
	return err
}
