package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// secret is the source of a passphrase: a whole file, a file descriptor without the
// newline at its end, or the terminal.
type secret struct {
	what    string
	confirm bool // the terminal asks twice
	file    string
	offset  int64
	size    int64
	fd      int
}

// maxSecret is the limit of cryptsetup.
const maxSecret = 8 << 20

// flags adds the options; prefix distinguishes two secrets of one command.
func (s *secret) flags(cmd *cobra.Command, prefix string) {
	f := cmd.Flags()
	f.StringVar(&s.file, prefix+"key-file", "", "file with the "+s.what+", including any newline; -: standard input")
	f.Int64Var(&s.offset, prefix+"key-file-offset", 0, "bytes of the file to skip")
	f.Int64Var(&s.size, prefix+"key-file-size", 0, "bytes of the file to use; 0: all")
	f.IntVar(&s.fd, prefix+"key-fd", -1, "file descriptor with the "+s.what+", up to its end, without a final newline")
}

// read returns the passphrase. The caller must clear it.
func (s *secret) read(cmd *cobra.Command) ([]byte, error) {
	switch {
	case s.file != "" && s.fd >= 0:
		return nil, fmt.Errorf("the %s can be read from a file or a file descriptor, not from both", s.what)
	case s.file == "-":
		return s.cut(cmd.InOrStdin())
	case s.file != "":
		f, err := os.Open(s.file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return s.cut(f)
	case s.fd >= 0:
		f := os.NewFile(uintptr(s.fd), "passphrase")
		if f == nil {
			return nil, fmt.Errorf("%d is not a file descriptor", s.fd)
		}
		defer f.Close()
		p, err := s.cut(f)
		return bytes.TrimSuffix(p, []byte("\n")), err
	}
	return s.ask(cmd)
}

// cut reads the part of r that is the passphrase.
func (s *secret) cut(r io.Reader) ([]byte, error) {
	if _, err := io.CopyN(io.Discard, r, s.offset); err != nil {
		return nil, fmt.Errorf("cannot skip %d bytes of the %s: %w", s.offset, s.what, err)
	}
	limit := int64(maxSecret)
	if s.size > 0 {
		limit = min(limit, s.size)
	}
	p, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case s.size > 0 && int64(len(p)) < s.size:
		return nil, fmt.Errorf("the %s ends after %d bytes, want %d", s.what, len(p), s.size)
	case s.size == 0 && len(p) > maxSecret:
		return nil, fmt.Errorf("the %s is longer than %d bytes; use --key-file-size", s.what, maxSecret)
	}
	return p[:min(int64(len(p)), limit)], nil
}

// ask reads from the terminal without echo.
func (s *secret) ask(cmd *cobra.Command) ([]byte, error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return nil, fmt.Errorf("there is no terminal to ask for the %s; use --key-file or --key-fd", s.what)
	}
	p, err := prompt(cmd, in, s.what)
	if err != nil || !s.confirm {
		return p, err
	}
	again, err := prompt(cmd, in, s.what+" again")
	defer clear(again)
	if err == nil && !bytes.Equal(p, again) {
		err = errors.New("the two passphrases differ; nothing was changed")
	}
	if err != nil {
		clear(p)
		return nil, err
	}
	return p, nil
}

func prompt(cmd *cobra.Command, in int, what string) ([]byte, error) {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: ", what)
	p, err := term.ReadPassword(in)
	fmt.Fprintln(cmd.ErrOrStderr())
	return p, err
}
