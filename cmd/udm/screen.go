package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// screen is where udm top shows its tables: a terminal, or anything that takes lines.
type screen struct {
	cmd   *cobra.Command
	flags topFlags
	live  bool        // a terminal whose cursor can be moved
	keys  chan byte   // nil without a keyboard
	saved *term.State // of the keyboard
	again []topRow    // the last table
	first bool
}

func newScreen(cmd *cobra.Command, f topFlags) *screen {
	s := &screen{cmd: cmd, flags: f, first: true}
	out, in := int(os.Stdout.Fd()), int(os.Stdin.Fd())
	s.live = !f.once && !wantsJSON(cmd) && cmd.OutOrStdout() == io.Writer(os.Stdout) && term.IsTerminal(out) && !slices.Contains([]string{"", "dumb"}, os.Getenv("TERM"))
	if !s.live || !term.IsTerminal(in) {
		return s
	}
	if saved, err := term.MakeRaw(in); err == nil {
		s.saved, s.keys = saved, make(chan byte)
		go s.read() // until the program ends: nothing interrupts a read of a terminal
	}
	return s
}

// close leaves the terminal as it was.
func (s *screen) close() {
	if s.saved != nil {
		_ = term.Restore(int(os.Stdin.Fd()), s.saved)
	}
}

func (s *screen) read() {
	for key := make([]byte, 1); ; {
		if n, err := os.Stdin.Read(key); n == 0 || err != nil {
			return
		}
		s.keys <- key[0]
	}
}

// Keys that a terminal in raw mode passes on.
const ctrlC, ctrlD = 3, 4

// wait waits for the next tick and does what keys ask for. False: that was to end.
func (s *screen) wait(ctx context.Context, tick <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case key := <-s.keys:
			switch key {
			case 'q', 'Q', ctrlC, ctrlD:
				return false
			case 's', 'S':
				i := slices.Index(topOrders, s.flags.sort)
				s.flags.sort = topOrders[(i+1)%len(topOrders)]
				if s.draw(s.again) != nil {
					return false
				}
			}
		}
	}
}

// show shows a table.
func (s *screen) show(rows []topRow) error {
	sortTop(rows, s.flags.sort)
	switch {
	case wantsJSON(s.cmd):
		return jsonRows(s.cmd, rows, s.flags.once)
	case s.live:
		return s.draw(rows)
	}
	if !s.first {
		fmt.Fprintln(s.cmd.OutOrStdout())
	}
	s.first = false
	return printTop(s.cmd.OutOrStdout(), rows, 0)
}

// draw replaces what the terminal shows by a table, as much of it as fits.
func (s *screen) draw(rows []topRow) error {
	s.again = rows
	sortTop(rows, s.flags.sort)
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		width, height = 80, 24
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "udm top: %d devices by %s, each %s; q ends, s sorts\n", len(rows), s.flags.sort, s.flags.every)
	if err := printTop(&text, rows, height-2); err != nil {
		return err
	}
	var out strings.Builder
	out.WriteString("\x1b[H")
	for line := range strings.Lines(text.String()) {
		out.WriteString(cutLine(strings.TrimSuffix(line, "\n"), width) + "\x1b[K\r\n")
	}
	out.WriteString("\x1b[J")
	_, err = io.WriteString(os.Stdout, out.String())
	return err
}

// cutLine is what of a line a terminal shows.
func cutLine(line string, width int) string {
	r := []rune(line)
	return string(r[:min(len(r), width)])
}

// printable is a name without characters that a terminal would obey.
func printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strings.Trim(strconv.Quote(name), `"`)
	}
	return name
}
