package metrics

import (
	"maps"
	"slices"
	"testing"
)

// Rig is a service, for tests of the packages that tell its problems.
type Rig = rig

// NewRig returns a service without devices.
func NewRig(t *testing.T) *Rig { return newRig(t) }

// Config returns how the service is looked at.
func (r *rig) Config() Config { return r.source.Config }

// Samples returns the values of one scrape, by name and labels.
func (r *rig) Samples() map[string]float64 { return r.samples() }

// Cause causes a fault and returns the alerts that it raises.
func (r *rig) Cause(fault string) (alerts []string) {
	f := faults[fault]
	f.make(r)
	return slices.Sorted(slices.Values(f.alerts))
}

// Faults returns the names of the faults.
func Faults() []string { return slices.Sorted(maps.Keys(faults)) }

// Alerts returns the names of all alerts.
func Alerts(t *testing.T) (names []string) {
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
	}
	return names
}

// Promtool runs promtool on a file with the given text.
func Promtool(t *testing.T, text string, args ...string) { promtool(t, text, args...) }
