package metrics

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// comparison is the form of most expressions: a metric, or its share of another one,
// compared with a number.
var comparison = regexp.MustCompile(`^(\w+)(?:\{(\w+)="(\w+)"\})?(?: / (\w+))? (==|>|<) ([\d.]+)$`)

// conditionOf returns what a rule's expression says about metrics of one moment; nil if that
// needs those of others.
func conditionOf(r rule) condition {
	if m := comparison.FindStringSubmatch(r.Expr); m != nil && strings.HasPrefix(m[1], "udm_") {
		number, _ := strconv.ParseFloat(m[6], 64) // the pattern has digits and dots only
		return func(f figures) []hit { return f.compare(m[1], m[2], m[3], m[4], m[5], number) }
	}
	return special[r.Alert]
}

// special are conditions of expressions with more than a comparison.
var special = map[string]condition{
	// Prometheus tells of recent errors. Those who look now want to know of all.
	"UdmDeviceErrors": func(f figures) []hit { return f.compare(deviceErrors.name, "", "", "", ">", 0) },
	"UdmSuspended": func(f figures) (hits []hit) {
		waiting := f.byDevice(deviceQueued)
		for _, h := range f.compare(suspended.name, "", "", "", "==", 1) {
			if waiting[h.labels["device"]] > 0 {
				hits = append(hits, h)
			}
		}
		return hits
	},
	"UdmDeviceStuck": func(f figures) (hits []hit) {
		done := f.byDevice(deviceSeconds)
		for _, h := range f.compare(deviceInFlight.name, "", "", "", ">", 0) {
			h.state = fmt.Sprint(done[h.labels["device"]])
			hits = append(hits, h)
		}
		return hits
	},
}
