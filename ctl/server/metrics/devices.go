package metrics

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"udm/blk"
	"udm/ctl"
)

var (
	devices        = gauge("udm_devices", "Mapped devices.")
	deviceSize     = gauge("udm_device_size_bytes", "Size of the device.")
	deviceUsers    = gauge("udm_device_users", "Tables, clients, files and block devices that use the device.")
	suspended      = gauge("udm_device_suspended", "1 while the device is suspended.")
	missing        = gauge("udm_device_table_missing", "1 while the saved table of the device cannot be loaded.")
	deviceEvents   = counter("udm_device_events_total", "Events of the device.")
	deviceInFlight = gauge("udm_device_in_flight", "I/O that was sent to the targets and has not ended.")
	deviceQueued   = gauge("udm_device_queued", "I/O that waits for a resume, a table or its turn.")
	deviceErrors   = counter("udm_device_errors_total", "I/O that has failed.")
	deviceBytes    = counter("udm_device_bytes_total", "Bytes of the I/O that has ended.")
	deviceSeconds  = histogram("udm_device_io_seconds", "Time from the beginning to the end of an I/O.")
)

// deviceLabel is the label of a device.
func deviceLabel(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	var b strings.Builder
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, name[0])
		} else {
			b.WriteRune(r)
		}
		name = name[n:]
	}
	return b.String()
}

// device tells what every device has.
func (p *page) device(d ctl.Device) {
	ls := label("device", deviceLabel(d.Name))
	p.set(deviceSize, ls, float64(d.Sectors*blk.SectorSize))
	p.set(deviceUsers, ls, float64(d.Opens))
	p.set(deviceEvents, ls, float64(d.Event))
	p.is(suspended, ls, d.Suspended)
	p.is(missing, ls, d.Waiting != "")
}

// stats tells what a device has done.
func (p *page) stats(s ctl.Stats) {
	name := deviceLabel(s.Name)
	ls := label("device", name)
	p.set(deviceInFlight, ls, float64(s.InFlight))
	p.set(deviceQueued, ls, float64(s.Queued))
	if c := s.Commits; c != nil {
		p.sum(commitSeconds, ls, c.Count, c.Time.Seconds())
		p.set(commitLongest, ls, c.Longest.Seconds())
	}
	for _, op := range ops {
		o, any := s.Ops[op]
		if any || op == "read" || op == "write" {
			p.op(label("device", name, "op", op), o)
		}
	}
}

// ops are the names of ops, in the order of the text.
var ops = []string{"discard", "flush", "read", "write", "write_zeroes"}

// op tells of one op. Without any I/O there is no histogram.
func (p *page) op(ls labels, o ctl.OpStats) {
	p.set(deviceErrors, ls, float64(o.Failed))
	p.set(deviceBytes, ls, float64(o.Bytes))
	if o.Count > 0 {
		p.latency(deviceSeconds, ls, o.Buckets, o.Time)
	}
}
