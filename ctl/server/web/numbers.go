package web

import (
	dto "github.com/prometheus/client_model/go"

	"udm/ctl/server/metrics"
)

// numbers are the metrics of devices: by name, with the value of a further label in braces,
// the values of all devices in the order of the list of devices, or null. The value of a
// histogram is an array: count, sum in seconds, and the buckets, which are not cumulative.
type numbers map[string][]any

// sample is a metric that is not about one device.
type sample struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Value  float64           `json:"value"`
}

// numbersOf sorts metrics by what they are about.
func numbersOf(fs []*dto.MetricFamily, index map[string]int) (numbers, []sample) {
	byLabel := make(map[string]int, len(index))
	for name, i := range index {
		byLabel[metrics.Name(name)] = i
	}
	ns, others := make(numbers), []sample{}
	for _, f := range fs {
		for _, m := range f.Metric {
			key, device := keyOf(f.GetName(), m)
			i, ok := byLabel[device]
			if !ok || key == "" {
				others = append(others, sample{f.GetName(), metrics.Labels(m), metrics.Value(m)})
				continue
			}
			if ns[key] == nil {
				ns[key] = make([]any, len(index))
			}
			ns[key][i] = valueOf(m)
		}
	}
	return ns, others
}

// keyOf returns the key of a metric in numbers and its device; "" if it is not about a device
// alone.
func keyOf(name string, m *dto.Metric) (key, device string) {
	key = name
	for _, l := range m.Label {
		switch l.GetName() {
		case "device":
			device = l.GetValue()
		case "op", "mode":
			key += "{" + l.GetValue() + "}"
		default:
			return "", ""
		}
	}
	return key, device
}

func valueOf(m *dto.Metric) any {
	h := m.Histogram
	if h == nil {
		return metrics.Value(m)
	}
	v, before := []float64{float64(h.GetSampleCount()), h.GetSampleSum()}, uint64(0)
	for _, b := range h.Bucket {
		v = append(v, float64(b.GetCumulativeCount()-before))
		before = b.GetCumulativeCount()
	}
	return append(v, float64(h.GetSampleCount()-before))
}
