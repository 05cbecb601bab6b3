package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"udm/ctl"
	"udm/ctl/server/metrics"
	"udm/ctl/server/service"
)

// How often the daemon looks for problems by itself, for the log. With thousands of devices a
// look takes some time: lookShare is the share of the processor that is spent on it at most,
// as a divisor.
const (
	lookEvery = 30 * time.Second
	lookShare = 500
)

// watch looks for problems now and then until ctx ends, and returns what waits for that.
func (d *daemon) watch(ctx context.Context, s *service.Service) (wait func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for pause := lookEvery; ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			began := time.Now()
			if _, err := d.look(ctx, s); err != nil {
				d.cfg.Log.Debug("a look for problems failed", "reason", err)
			}
			pause = max(lookEvery, lookShare*time.Since(began))
		}
	}()
	return func() {
		select {
		case <-ended:
		case <-time.After(grace): // a disk does not answer; it is given up with the rest
		}
	}
}

// look returns the problems, and logs what is new.
func (d *daemon) look(ctx context.Context, s *service.Service) ([]ctl.Problem, error) {
	return d.problems.Look(ctx, metrics.Config{Service: uncounted{s}, Root: d.cfg.Root, Log: d.cfg.Log})
}

// uncounted is a service whose devices do not begin to count because somebody looks. While
// they do not, nobody knows whether I/O in flight moves, so that there is none to be seen.
type uncounted struct{ *service.Service }

func (u uncounted) Stats(context.Context) ([]ctl.Stats, error) {
	all, counting := u.StatsSoFar()
	for i := range all {
		if !counting {
			all[i].InFlight = 0
		}
	}
	return all, nil
}

// serveProblems answers GET ctl.ProblemsPath.
func (d *daemon) serveProblems(s *service.Service) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		list, err := d.look(r.Context(), s)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(append([]ctl.Problem{}, list...)) // who asked may be gone
	}
}
