package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/nbdclient"
)

// commands runs commands of a group, such as udm luks, in a folder of its own.
type commands struct {
	*testing.T
	group, dir string
}

func (c *commands) path(name string) string { return filepath.Join(c.dir, name) }

func (c *commands) write(name string, p []byte) {
	c.Helper()
	if err := os.WriteFile(c.path(name), p, 0o600); err != nil {
		c.Fatal(err)
	}
}

// flip changes a bit of a file.
func (c *commands) flip(name string, at int) {
	c.Helper()
	p, err := os.ReadFile(c.path(name))
	if err != nil {
		c.Fatal(err)
	}
	p[at] ^= 1
	c.write(name, p)
}

// run runs a command line, in which files are named @NAME.
func (c *commands) run(ctx context.Context, line string) (string, error) {
	var out bytes.Buffer
	err := c.runTo(ctx, line, &out)
	return out.String(), err
}

func (c *commands) runTo(ctx context.Context, line string, out io.Writer) error {
	cmd := rootCommand()
	words := append([]string{c.group}, strings.Fields(line)...)
	for i, w := range words {
		words[i] = strings.Replace(w, "@", c.dir+"/", 1)
	}
	cmd.SetArgs(words)
	cmd.SetOut(out)
	cmd.SetErr(out)
	return cmd.ExecuteContext(ctx)
}

func (c *commands) must(line string) string {
	c.Helper()
	out, err := c.run(c.Context(), line)
	if err != nil {
		c.Fatalf("udm %s %s: %v\n%s", c.group, line, err, out)
	}
	return out
}

func (c *commands) fails(line, want string) {
	c.Helper()
	if out, err := c.run(c.Context(), line); err == nil || !strings.Contains(err.Error(), want) {
		c.Errorf("udm %s %s: %v, want %s\n%s", c.group, line, err, want, out)
	}
}

// serves runs a command that serves a disk, lets use have the disk, and interrupts the
// command.
func (c *commands) serves(line string, use func(blk.Device)) {
	c.Helper()
	dir, err := os.MkdirTemp("", "udm") // the path of a socket is short
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	ended := make(chan error, 1)
	r, w := io.Pipe()
	go func() {
		err := c.runTo(ctx, line+" --socket "+dir+"/s", w)
		w.CloseWithError(err)
		ended <- err
	}()
	out := bufio.NewReader(r)
	uri, err := out.ReadString('\n')
	if err != nil {
		c.Fatal(err)
	}
	rest := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, out)
		rest <- err
	}()
	d, err := nbdclient.DialURI(ctx, strings.TrimSpace(uri), nbdclient.Options{})
	if err != nil {
		c.Fatal(err)
	}
	use(d)
	err = d.Close()
	cancel()
	if err := errors.Join(err, <-ended, <-rest); err != nil {
		c.Error(err)
	}
}
