package metrics

import (
	"context"

	dto "github.com/prometheus/client_model/go"
)

// Families returns udm's own metrics in ascending order of names, for programs that show
// them elsewhere.
func Families(ctx context.Context, c Config) ([]*dto.MetricFamily, error) {
	s, p := &source{Config: c}, newPage()
	if err := s.fill(ctx, p); err != nil {
		return nil, err
	}
	return p.sorted(), nil
}

// Name returns the name of a device or disk as the metrics have it, which is valid UTF-8.
func Name(name string) string { return deviceLabel(name) }

// figures are the metrics of one moment by name.
type figures map[string][]*dto.Metric

func figuresOf(fs []*dto.MetricFamily) figures {
	f := make(figures, len(fs))
	for _, family := range fs {
		f[family.GetName()] = family.Metric
	}
	return f
}

// Value returns the value of a gauge or counter, or the number of observations.
func Value(m *dto.Metric) float64 {
	switch {
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount())
	}
	return float64(m.GetSummary().GetSampleCount())
}

// Labels returns the labels of a metric by name.
func Labels(m *dto.Metric) map[string]string {
	ls := make(map[string]string, len(m.Label))
	for _, l := range m.Label {
		ls[l.GetName()] = l.GetValue()
	}
	return ls
}

// byDevice returns the values of a metric by device, summed over all ops.
func (f figures) byDevice(m *metric) map[string]float64 {
	sums := make(map[string]float64)
	for _, one := range f[m.name] {
		sums[labelOf(one, "device")] += Value(one)
	}
	return sums
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// compare returns where a metric, or its share of another one with the same labels,
// compares with a number. A label other than "" must have the given value.
func (f figures) compare(name, label, value, whole, how string, number float64) (hits []hit) {
	totals := f[whole]
	for i, one := range f[name] {
		if label != "" && labelOf(one, label) != value {
			continue
		}
		v := Value(one)
		if whole != "" {
			v /= Value(totals[i]) // always set together, so that both are in the same order
		}
		if how == "==" && v == number || how == ">" && v > number || how == "<" && v < number {
			hits = append(hits, hit{labels: Labels(one), value: v})
		}
	}
	return hits
}
