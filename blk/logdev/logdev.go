// Package logdev logs the bios that pass through a device: one line when a bio is
// submitted and one when it ends, in order of occurrence.
//
//	submit write 8+8 fua
//	end write 8+8 fua ok
//
// Several devices may share a [Log]; their lines then begin with their labels:
// "meta: submit flush 0+0". The log is kept in memory, for golden tests and small
// runs.
package logdev

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"udm/blk"
)

// Log collects lines. The zero value is an empty log.
type Log struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

// Add appends a line, so that a test can mark positions in the log.
func (l *Log) Add(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	l.mu.Lock()
	l.lines = append(l.lines, s)
	l.mu.Unlock()
}

// Lines returns a copy of the lines so far.
func (l *Log) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// Take returns the lines so far as text, each with its newline, and empties the
// log.
func (l *Log) Take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := append(l.lines, "")
	l.lines = nil
	return strings.Join(lines, "\n")
}

// Device passes everything on to a device below, which it owns.
type Device struct {
	lower  blk.Device
	log    *Log
	prefix string
}

// New returns a device that writes to log, with label before each line unless
// it is empty.
func New(lower blk.Device, log *Log, label string) *Device {
	if label != "" {
		label += ": "
	}
	return &Device{lower: lower, log: log, prefix: label}
}

// Submit logs b, passes it on, and logs its end.
func (d *Device) Submit(b *blk.Bio) {
	what := b.String()
	d.log.Add("%ssubmit %s", d.prefix, what)
	c := &blk.Bio{End: func(c *blk.Bio) {
		d.log.Add("%send %s %v", d.prefix, what, c.Status())
		b.Complete(c.Status())
	}}
	c.CloneFrom(b)
	d.lower.Submit(c)
}

func (d *Device) Limits() blk.Limits { return d.lower.Limits() }
func (d *Device) Close() error       { return d.lower.Close() }
func (d *Device) String() string     { return d.lower.String() }

// Extents is that of the device below; it is not logged.
func (d *Device) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(d.lower, sector, sectors), nil
}
