package metrics

import (
	"bytes"
	"io"
	"math"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// encoder writes metric families in the text format of Prometheus or OpenMetrics, byte for
// byte as package expfmt does, at a fraction of its cost: a scrape of thousands of devices has
// more than 100,000 lines. It knows what the metrics here have: names that need no quotes, and
// neither timestamps nor exemplars.
type encoder struct {
	w      io.Writer
	open   bool   // OpenMetrics
	buf    []byte // not written yet
	labels []byte // of the metric, without braces
	bounds bounded
	err    error // of the first write that failed
}

// enough is how much is written at once.
const enough = 32 << 10

// family writes a family.
func (e *encoder) family(f *dto.MetricFamily) {
	name, kind := f.GetName(), f.GetType()
	e.comments(f)
	for _, m := range f.Metric {
		e.setLabels(m.Label)
		switch kind {
		case dto.MetricType_HISTOGRAM:
			e.histogram(name, m.Histogram)
		case dto.MetricType_SUMMARY:
			e.summary(name, m.Summary)
		case dto.MetricType_COUNTER:
			e.sample(name, "", "", m.Counter.GetValue())
		case dto.MetricType_GAUGE:
			e.sample(name, "", "", m.Gauge.GetValue())
		default:
			e.sample(name, "", "", m.Untyped.GetValue())
		}
		if len(e.buf) >= enough {
			e.flush()
		}
	}
}

// close writes the rest and returns the first error.
func (e *encoder) close() error {
	if e.open {
		e.buf = append(e.buf, "# EOF\n"...)
	}
	e.flush()
	return e.err
}

func (e *encoder) flush() {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

// comments writes the help and the kind of a family. OpenMetrics names counters without their
// suffix there.
func (e *encoder) comments(f *dto.MetricFamily) {
	name, kind, help := f.GetName(), strings.ToLower(f.GetType().String()), escapedHelp
	if e.open {
		help = escaped
		if f.GetType() == dto.MetricType_COUNTER {
			name = strings.TrimSuffix(name, "_total")
		}
		if kind == "untyped" || f.GetType() == dto.MetricType_COUNTER && name == f.GetName() {
			kind = "unknown"
		}
	}
	if f.Help != nil {
		e.text("# HELP ", name, " ", help.Replace(f.GetHelp()), "\n")
	}
	e.text("# TYPE ", name, " ", kind, "\n")
}

func (e *encoder) text(parts ...string) {
	for _, s := range parts {
		e.buf = append(e.buf, s...)
	}
}

var (
	escapedHelp = strings.NewReplacer("\\", `\\`, "\n", `\n`)
	escaped     = strings.NewReplacer("\\", `\\`, "\n", `\n`, "\"", `\"`)
)

func (e *encoder) setLabels(ls []*dto.LabelPair) {
	e.labels = e.labels[:0]
	for i, l := range ls {
		if i > 0 {
			e.labels = append(e.labels, ',')
		}
		e.labels = append(append(e.labels, l.GetName()...), `="`...)
		value := l.GetValue()
		if strings.ContainsAny(value, "\\\n\"") {
			value = escaped.Replace(value)
		}
		e.labels = append(append(e.labels, value...), '"')
	}
}

// begin begins the line of a sample with one more label, if that is not "".
func (e *encoder) begin(name, suffix, more string) {
	e.buf = append(append(e.buf, name...), suffix...)
	if len(e.labels) > 0 || more != "" {
		e.buf = append(append(e.buf, '{'), e.labels...)
		if len(e.labels) > 0 && more != "" {
			e.buf = append(e.buf, ',')
		}
		e.buf = append(append(e.buf, more...), '}')
	}
	e.buf = append(e.buf, ' ')
}

func (e *encoder) sample(name, suffix, more string, v float64) {
	e.begin(name, suffix, more)
	e.buf = append(appendFloat(e.buf, v, e.open), '\n')
}

// count writes a sample that OpenMetrics has as a whole number.
func (e *encoder) count(name, suffix, more string, n uint64) {
	e.begin(name, suffix, more)
	if e.open || n < plain {
		e.buf = strconv.AppendUint(e.buf, n, 10)
	} else {
		e.buf = appendFloat(e.buf, float64(n), false)
	}
	e.buf = append(e.buf, '\n')
}

func (e *encoder) histogram(name string, h *dto.Histogram) {
	last := false // there is a bucket without a bound
	for i, b := range h.Bucket {
		e.count(name, "_bucket", e.bounds.label(i, b.GetUpperBound(), e.open), b.GetCumulativeCount())
		last = last || math.IsInf(b.GetUpperBound(), 1)
	}
	if !last {
		e.count(name, "_bucket", `le="+Inf"`, h.GetSampleCount())
	}
	e.sample(name, "_sum", "", h.GetSampleSum())
	e.count(name, "_count", "", h.GetSampleCount())
}

func (e *encoder) summary(name string, s *dto.Summary) {
	for _, q := range s.Quantile {
		e.sample(name, "", `quantile="`+string(appendFloat(nil, q.GetQuantile(), e.open))+`"`, q.GetValue())
	}
	e.sample(name, "_sum", "", s.GetSampleSum())
	e.count(name, "_count", "", s.GetSampleCount())
}

// bounded are the bounds of the histogram before, which are mostly those of the next one, and
// their labels.
type bounded struct {
	bounds []float64
	labels []string
}

// label returns the label of bucket i.
func (b *bounded) label(i int, bound float64, open bool) string {
	if i >= len(b.bounds) {
		b.bounds, b.labels = append(b.bounds, bound), append(b.labels, "")
	}
	if b.labels[i] == "" || b.bounds[i] != bound {
		b.bounds[i], b.labels[i] = bound, `le="`+string(appendFloat(nil, bound, open))+`"`
	}
	return b.labels[i]
}

// plain is the first whole number that is written with an exponent.
const plain = 1_000_000

// appendFloat appends a number as it is in both formats; in OpenMetrics it is never like a
// whole one.
func appendFloat(b []byte, v float64, open bool) []byte {
	start := len(b)
	switch {
	case v >= 0 && v < plain && v == math.Trunc(v):
		b = strconv.AppendUint(b, uint64(v), 10)
	case math.IsInf(v, 0) || math.IsNaN(v):
		return strconv.AppendFloat(b, v, 'g', -1, 64)
	default:
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	if open && !bytes.ContainsAny(b[start:], "e.") {
		b = append(b, ".0"...)
	}
	return b
}
