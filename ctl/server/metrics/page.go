package metrics

import (
	"cmp"
	"maps"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// metric defines a metric family.
type metric struct {
	name, help string
	kind       dto.MetricType
}

// families are all families defined by this package.
var families []*metric

func define(kind dto.MetricType, name, help string) *metric {
	m := &metric{name, help, kind}
	families = append(families, m)
	return m
}

func gauge(name, help string) *metric     { return define(dto.MetricType_GAUGE, name, help) }
func counter(name, help string) *metric   { return define(dto.MetricType_COUNTER, name, help) }
func summary(name, help string) *metric   { return define(dto.MetricType_SUMMARY, name, help) }
func histogram(name, help string) *metric { return define(dto.MetricType_HISTOGRAM, name, help) }

// labels are sorted by name. Metrics share them, so they must not be changed.
type labels []*dto.LabelPair

// label returns labels from pairs of name and value.
func label(pairs ...string) labels {
	ls := make(labels, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		ls = append(ls, &dto.LabelPair{Name: &pairs[i], Value: &pairs[i+1]})
	}
	slices.SortFunc(ls, func(a, b *dto.LabelPair) int { return cmp.Compare(*a.Name, *b.Name) })
	return ls
}

// page holds the metrics of one scrape.
type page struct {
	families map[*metric]*dto.MetricFamily
	numbers  []number    // allocated, not used yet
	times    []latencies // allocated, not used yet
}

func newPage() *page { return &page{families: make(map[*metric]*dto.MetricFamily)} }

// number is a gauge or counter in a single allocation.
type number struct {
	dto.Metric
	gauge   dto.Gauge
	counter dto.Counter
	value   float64
}

// slab is the number of metrics allocated at once.
const slab = 128

// next takes an element from a slab, and allocates a new slab when it is empty.
func next[T any](unused *[]T) *T {
	if len(*unused) == 0 {
		*unused = make([]T, slab)
	}
	t := &(*unused)[0]
	*unused = (*unused)[1:]
	return t
}

func (p *page) add(m *metric, one *dto.Metric) {
	f := p.families[m]
	if f == nil {
		f = &dto.MetricFamily{Name: &m.name, Help: &m.help, Type: &m.kind}
		p.families[m] = f
	}
	f.Metric = append(f.Metric, one)
}

// set adds a value of a gauge or counter.
func (p *page) set(m *metric, ls labels, value float64) {
	n := next(&p.numbers)
	n.Label, n.value = ls, value
	if m.kind == dto.MetricType_COUNTER {
		n.Counter, n.counter.Value = &n.counter, &n.value
	} else {
		n.Gauge, n.gauge.Value = &n.gauge, &n.value
	}
	p.add(m, &n.Metric)
}

// is adds a gauge with the value 1 or 0.
func (p *page) is(m *metric, ls labels, yes bool) {
	if yes {
		p.set(m, ls, 1)
		return
	}
	p.set(m, ls, 0)
}

// sum adds a summary without quantiles.
func (p *page) sum(m *metric, ls labels, count uint64, sum float64) {
	p.add(m, &dto.Metric{Label: ls, Summary: &dto.Summary{SampleCount: &count, SampleSum: &sum}})
}

// sorted returns the families sorted by name.
func (p *page) sorted() []*dto.MetricFamily {
	return slices.SortedFunc(maps.Values(p.families), byName)
}

func byName(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) }
