package metrics

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"udm/ctl"
)

// Config configures Handler.
type Config struct {
	Service ctl.Service
	Root    string // directory of the daemon
	Log     *slog.Logger
}

// maxScrapes bounds concurrent scrapes; further ones get 503 Service Unavailable.
const maxScrapes = 4

// Handler returns a handler for /metrics, /healthz and /readyz.
func Handler(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", &scraped{source: newSource(c), room: make(chan bool, maxScrapes)})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { ready(w, r, c.Service) })
	return mux
}

// scraped answers /metrics.
type scraped struct {
	source *source
	room   chan bool // full while maxScrapes are under way
}

func (s *scraped) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case s.room <- true:
		defer func() { <-s.room }()
	default:
		http.Error(w, fmt.Sprintf("%d scrapes are under way; try again later", maxScrapes), http.StatusServiceUnavailable)
		return
	}
	fs, err := s.source.Gather()
	if err != nil {
		s.source.Log.Warn("the metrics cannot be gathered", "reason", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	format := expfmt.NegotiateIncludingOpenMetrics(r.Header)
	w.Header().Set("Content-Type", string(format))
	_ = encode(w, format, fs) // who asked may be gone
}

// encode writes families in a format that was asked for.
func encode(w io.Writer, format expfmt.Format, fs []*dto.MetricFamily) error {
	kind := format.FormatType()
	if kind == expfmt.TypeTextPlain || kind == expfmt.TypeOpenMetrics {
		e := encoder{w: w, open: kind == expfmt.TypeOpenMetrics}
		for _, f := range fs {
			e.family(f)
		}
		return e.close()
	}
	e := expfmt.NewEncoder(w, format)
	for _, f := range fs {
		if err := e.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

// ready answers /readyz.
func ready(w http.ResponseWriter, r *http.Request, s ctl.Service) {
	v, err := s.Version(r.Context())
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case v.Restoring != nil:
		http.Error(w, fmt.Sprintf("restoring devices: %s restored", v.Restoring), http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(w, "ok")
	}
}

// source is a prometheus.Gatherer: it adds pages to a registry with the metrics of Go and of
// the process.
type source struct {
	Config
	registry *prometheus.Registry
}

func newSource(c Config) *source {
	s := &source{Config: c, registry: prometheus.NewRegistry()}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

// Gather implements [prometheus.Gatherer].
func (s *source) Gather() ([]*dto.MetricFamily, error) {
	fs, err := s.registry.Gather()
	if err != nil {
		return nil, err
	}
	p := newPage()
	if err := s.fill(context.Background(), p); err != nil {
		return nil, err
	}
	fs = append(fs, p.sorted()...)
	slices.SortFunc(fs, byName)
	return fs, nil
}

// fill queries the service and adds all metrics to a page.
func (s *source) fill(ctx context.Context, p *page) error {
	v, err := s.Service.Version(ctx)
	if err != nil {
		return err
	}
	p.version(v)
	if err := s.devices(ctx, p); err != nil {
		return err
	}
	ops, err := s.Service.Operations(ctx)
	if err != nil {
		return err
	}
	p.operations(ops)
	ends, err := s.Service.FrontEnds(ctx)
	for _, f := range ends {
		p.frontEnd(f)
	}
	return err
}

func (s *source) devices(ctx context.Context, p *page) error {
	all, err := s.Service.Stats(ctx)
	if err != nil {
		return err
	}
	for _, st := range all {
		p.stats(st)
	}
	ds, err := s.Service.List(ctx, ctl.Query{With: []ctl.With{ctl.WithStatus, ctl.WithDeps}, Noflush: true})
	if err != nil {
		return err
	}
	p.set(devices, nil, float64(len(ds)))
	dirs, seen := places{s.Root: true}, make(map[ctl.Number]bool)
	for _, d := range ds {
		p.device(d)
		for _, l := range d.Status {
			p.target(ctx, s.Service, d, l)
		}
		for _, dep := range d.Deps {
			if dirs.add(dep.Source); dep.Report != nil && !seen[dep.Number] {
				seen[dep.Number] = true
				p.disk(dep.Source, dep.Report)
			}
		}
	}
	p.hosts(dirs)
	return nil
}
