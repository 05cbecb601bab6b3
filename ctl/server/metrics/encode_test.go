package metrics

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// formats are those that clients get.
var formats = []expfmt.Format{expfmt.NewFormat(expfmt.TypeTextPlain), expfmt.NewFormat(expfmt.TypeOpenMetrics)}

// asExpfmt checks that families are encoded as package expfmt does it.
func asExpfmt(t *testing.T, fs []*dto.MetricFamily) {
	t.Helper()
	for _, format := range formats {
		var got, want bytes.Buffer
		err := encode(&got, format, fs)
		e := expfmt.NewEncoder(&want, format)
		for _, f := range fs {
			err = errors.Join(err, e.Encode(f))
		}
		if err = errors.Join(err, e.(expfmt.Closer).Close()); err != nil {
			t.Fatal(err)
		}
		if g, w := got.Bytes(), want.Bytes(); !bytes.Equal(g, w) {
			i := 0
			for i < min(len(g), len(w)) && g[i] == w[i] {
				i++
			}
			from := max(0, i-200)
			t.Fatalf("%s: it is\n%s\nwant\n%s", format, g[from:min(len(g), i+100)], w[from:min(len(w), i+100)])
		}
	}
}

// What a daemon tells is encoded as package expfmt does it: of all kinds of metrics, those of
// Go and of the process among them, and of all kinds of names.
func TestEncodedAsExpfmt(t *testing.T) {
	r := newRig(t)
	r.pool()
	r.must(r.write("vol", 1<<20))
	for _, name := range []string{"a\"b\n<i>\\ü", "\xff\xfe", "{}", "le=\"1\""} {
		r.create(name, "0 8 linear mem:1M 0")
		r.must(r.write(name, 512))
	}
	fs, err := r.source.Gather()
	r.must(err)
	asExpfmt(t, fs)
}

// Numbers of all kinds are encoded as package expfmt does it.
func TestNumbersAsExpfmt(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	values := []float64{0, math.Copysign(0, -1), 1, -1, 0.5, 999_999, 999_999.5, 1e6, 1e6 + 1, 123456789, 1e20, 1e21, 1e22, -7, 1e-4, 1e-5, math.MaxUint64, math.MaxFloat64,
		math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN()}
	for range 2000 {
		values = append(values, math.Float64frombits(chance.Uint64()), float64(chance.IntN(1<<chance.IntN(40))))
	}
	p := newPage()
	untyped := &metric{"x", "an \"odd\" \\ help\nof two lines", dto.MetricType_UNTYPED}
	for _, m := range []*metric{{"g", "h", dto.MetricType_GAUGE}, {"c_total", "h", dto.MetricType_COUNTER}, {"c", "h", dto.MetricType_COUNTER}} {
		for _, v := range values {
			p.set(m, label("a", "b"), v)
		}
	}
	for _, v := range values {
		p.add(untyped, &dto.Metric{Untyped: &dto.Untyped{Value: &v}})
	}
	h, s := &metric{"h", "h", dto.MetricType_HISTOGRAM}, &metric{"s", "h", dto.MetricType_SUMMARY}
	for i, v := range values {
		n := chance.Uint64()
		hist := &dto.Histogram{SampleCount: &n, SampleSum: &v}
		for _, bound := range values[i : i+min(i%5, len(values)-i)] {
			hist.Bucket = append(hist.Bucket, &dto.Bucket{UpperBound: &bound, CumulativeCount: &n})
		}
		p.add(h, &dto.Metric{Histogram: hist})
		p.add(s, &dto.Metric{Label: label("a", "b"), Summary: &dto.Summary{SampleCount: &n, SampleSum: &v, Quantile: []*dto.Quantile{{Quantile: &v, Value: &v}}}})
	}
	asExpfmt(t, p.sorted())
}

// A client that hangs up ends the scrape.
func TestEncodeToNobody(t *testing.T) {
	gone := errors.New("gone")
	p := newPage()
	for range 10_000 {
		p.set(devices, label("device", "x"), 1)
	}
	if err := encode(failing{gone}, formats[0], p.sorted()); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
