package metrics

import (
	"time"

	dto "github.com/prometheus/client_model/go"

	"udm/ctl"
)

// bounds are ctl.LatencyBounds in seconds.
var bounds = func() (bs [len(ctl.LatencyBounds)]float64) {
	for i, b := range ctl.LatencyBounds {
		bs[i] = b.Seconds()
	}
	return bs
}()

// latencies is a histogram in a single allocation.
type latencies struct {
	dto.Metric
	histogram dto.Histogram
	count     uint64
	sum       float64
	buckets   [len(bounds)]dto.Bucket
	counts    [len(bounds)]uint64
	list      [len(bounds)]*dto.Bucket
}

// latency adds a histogram. buckets are not cumulative; sum is the sum of all observations.
// The last bucket has no upper bound and is included only in the count.
func (p *page) latency(m *metric, ls labels, buckets []uint64, sum time.Duration) {
	l := next(&p.times)
	l.sum = sum.Seconds()
	for i, n := range buckets {
		l.count += n
		if i < len(bounds) {
			l.counts[i] = l.count
			l.buckets[i].UpperBound, l.buckets[i].CumulativeCount = &bounds[i], &l.counts[i]
			l.list[i] = &l.buckets[i]
		}
	}
	l.histogram.SampleCount, l.histogram.SampleSum, l.histogram.Bucket = &l.count, &l.sum, l.list[:]
	l.Label, l.Histogram = ls, &l.histogram
	p.add(m, &l.Metric)
}
