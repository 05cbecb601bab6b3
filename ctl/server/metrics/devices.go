package metrics

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"udm/blk"
	"udm/ctl"
)

var (
	devices        = gauge("udm_devices", "Number of mapped devices.")
	deviceSize     = gauge("udm_device_size_bytes", "Size of the device.")
	deviceUsers    = gauge("udm_device_users", "Number of tables, clients, files and block devices that use the device.")
	suspended      = gauge("udm_device_suspended", "1 while the device is suspended.")
	missing        = gauge("udm_device_table_missing", "1 while the saved table of the device cannot be loaded.")
	deviceEvents   = counter("udm_device_events_total", "Number of events of the device.")
	deviceInFlight = gauge("udm_device_in_flight", "I/O sent to the targets and not completed.")
	deviceQueued   = gauge("udm_device_queued", "I/O waiting for a resume, a table or its turn.")
	deviceErrors   = counter("udm_device_errors_total", "Number of failed I/Os.")
	deviceBytes    = counter("udm_device_bytes_total", "Bytes of completed I/O.")
	deviceSeconds  = histogram("udm_device_io_seconds", "Latency of I/O.")
)

// deviceLabel returns a name as a label value, which must be valid UTF-8.
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

// device adds the metrics that all devices have.
func (p *page) device(d ctl.Device) {
	ls := label("device", deviceLabel(d.Name))
	p.set(deviceSize, ls, float64(d.Sectors*blk.SectorSize))
	p.set(deviceUsers, ls, float64(d.Opens))
	p.set(deviceEvents, ls, float64(d.Event))
	p.is(suspended, ls, d.Suspended)
	p.is(missing, ls, d.Waiting != "")
}

// stats adds the I/O and commit metrics of a device.
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

// ops are the values of the label op, sorted.
var ops = []string{"discard", "flush", "read", "write", "write_zeroes"}

// op adds the metrics of one op. There is no histogram without any I/O.
func (p *page) op(ls labels, o ctl.OpStats) {
	p.set(deviceErrors, ls, float64(o.Failed))
	p.set(deviceBytes, ls, float64(o.Bytes))
	if o.Count > 0 {
		p.latency(deviceSeconds, ls, o.Buckets, o.Time)
	}
}
