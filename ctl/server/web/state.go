package web

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"udm/ctl"
	"udm/ctl/server/metrics"
	"udm/volume"
)

// state is all that the page shows.
type state struct {
	Time       float64            `json:"time"` // seconds since the daemon's start, of the numbers
	Version    ctl.Version        `json:"version"`
	Root       string             `json:"root"`
	Operate    bool               `json:"operate"` // operations are allowed
	Bounds     []float64          `json:"bounds"`  // of latencies, in seconds
	Devices    []device           `json:"devices"`
	Disks      []disk             `json:"disks"`
	Numbers    numbers            `json:"numbers"`
	Others     []sample           `json:"others"` // metrics that are not about one device
	Problems   []ctl.Problem      `json:"problems"`
	Operations []volume.Operation `json:"operations"`
	FrontEnds  []ctl.FrontEnd     `json:"frontEnds"`
	Limits     []ctl.Limit        `json:"limits"`
	Machine    []Check            `json:"machine"` // what the machine lacks
}

// fresh is the time for which a state is that of the present.
const fresh = time.Second

// states makes states for all who ask.
type states struct {
	Config
	machine []Check
	began   time.Time

	mu   sync.Mutex // held while a state is made: the others wait for the same one
	at   time.Time  // guarded by mu
	text []byte     // guarded by mu
}

func newStates(c Config) *states {
	s := &states{Config: c, began: time.Now(), machine: []Check{}}
	if c.Machine != nil {
		s.machine = slices.DeleteFunc(c.Machine(), func(c Check) bool { return c.OK })
	}
	return s
}

// serve answers GET /api/state.
func (s *states) serve(w http.ResponseWriter, r *http.Request) {
	text, err := s.get(r.Context())
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // who asked may be gone
}

func (s *states) get(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text != nil && time.Since(s.at) < fresh {
		return s.text, nil
	}
	st, err := s.make(ctx)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(st)
	if err == nil {
		s.text, s.at = text, time.Now()
	}
	return text, err
}

// make asks the service for everything.
func (s *states) make(ctx context.Context) (*state, error) {
	families, err := metrics.Families(ctx, metrics.Config{Service: s.Service, Root: s.Root, Log: s.Log})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	st := &state{Time: now.Sub(s.began).Seconds(), Root: s.Root, Operate: s.Operations, Machine: s.machine}
	for _, b := range ctl.LatencyBounds {
		st.Bounds = append(st.Bounds, b.Seconds())
	}
	if st.Version, err = s.Service.Version(ctx); err != nil {
		return nil, err
	}
	ds, err := s.Service.List(ctx, ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithDeps}, Noflush: true})
	if err != nil {
		return nil, err
	}
	objects, err := s.Service.Objects(ctx)
	if err != nil {
		return nil, err
	}
	if st.Operations, err = s.Service.Operations(ctx); err != nil {
		return nil, err
	}
	if st.FrontEnds, err = s.Service.FrontEnds(ctx); err != nil {
		return nil, err
	}
	if st.Limits, err = s.Service.Limits(ctx); err != nil {
		return nil, err
	}
	g := newGraph(ds)
	st.Devices, st.Disks = g.devices(ds, objects), g.disks
	st.Numbers, st.Others = numbersOf(families, g.index)
	st.Problems = append([]ctl.Problem{}, s.Watch.Problems(metrics.Seen{Families: families, Devices: ds, Operations: st.Operations}, now)...)
	return st, nil
}
