package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"udm/ctl"
	"udm/packaging/prometheus"
	"udm/volume"
)

// Watch finds problems in the metrics of one daemon, and logs when they come and go. It is
// safe for concurrent use.
type Watch struct {
	rules []rule
	log   *slog.Logger

	mu    sync.Mutex
	last  time.Time            // guarded by mu; of the last look
	since map[string]time.Time // guarded by mu; since when a problem has been seen in every look
	told  map[string]string    // guarded by mu; summaries of the problems that the log has
}

// rule is an alert of the rules. Those that only Prometheus can evaluate have no condition.
type rule struct {
	Alert, Expr string
	For         time.Duration
	Labels      map[string]string
	Annotations map[string]string
	holds       condition
}

// hit is a problem of some labels. state is what must stay the same while it lasts.
type hit struct {
	labels map[string]string
	value  float64
	state  string
}

type condition func(figures) []hit

// NewWatch returns a Watch that has not looked yet.
func NewWatch(log *slog.Logger) (*Watch, error) {
	var f struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(prometheus.Rules, &f); err != nil {
		return nil, err
	}
	w := &Watch{log: log, since: make(map[string]time.Time), told: make(map[string]string)}
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			if r.holds = conditionOf(r); r.holds != nil {
				w.rules = append(w.rules, r)
			}
		}
	}
	return w, nil
}

// named is the shortest time that the words of an alert name. Shorter times only keep
// Prometheus from telling of what passes.
const named = 10 * time.Minute

// stuckFor is the time that UdmDeviceStuck names.
const stuckFor = 5 * time.Minute

// lasts returns how long the rule must hold for its words to be true.
func (r *rule) lasts() time.Duration {
	switch {
	case r.Alert == "UdmDeviceStuck":
		return stuckFor
	case r.For >= named:
		return r.For
	}
	return 0
}

// forgetAfter is the longest time between two looks that are taken for one stretch.
const forgetAfter = 5 * time.Minute

// Seen is what a look sees of a service.
type Seen struct {
	Families   []*dto.MetricFamily
	Devices    []ctl.Device // with what they stand on
	Operations []volume.Operation
}

// Look looks at a service now and returns its problems.
func (w *Watch) Look(ctx context.Context, c Config) ([]ctl.Problem, error) {
	seen, err := see(ctx, c)
	if err != nil {
		return nil, err
	}
	return w.Problems(seen, time.Now()), nil
}

func see(ctx context.Context, c Config) (seen Seen, err error) {
	if seen.Families, err = Families(ctx, c); err != nil {
		return seen, err
	}
	if seen.Devices, err = c.Service.List(ctx, ctl.Query{With: []ctl.With{ctl.WithDeps}, Noflush: true}); err != nil {
		return seen, err
	}
	seen.Operations, err = c.Service.Operations(ctx)
	return seen, err
}

// Problems returns what is wrong according to what was seen at a time. The critical ones come
// first.
func (w *Watch) Problems(seen Seen, now time.Time) []ctl.Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.last) > forgetAfter {
		clear(w.since)
	}
	w.last = now
	all, why := figuresOf(seen.Families), reasonsOf(seen)
	since, found := make(map[string]time.Time), make(map[string][]ctl.Problem)
	for _, r := range w.rules {
		for _, h := range r.holds(all) {
			key := fmt.Sprint(r.Alert, h.labels, h.state)
			if since[key] = now; !w.since[key].IsZero() {
				since[key] = w.since[key]
			}
			if now.Sub(since[key]) >= r.lasts() {
				p := r.problem(h)
				p.Detail = why.of(p)
				found[p.Severity] = append(found[p.Severity], p)
			}
		}
	}
	w.since = since
	list := append(found["critical"], found["warning"]...)
	w.tellLocked(list)
	return list
}

// tellLocked logs which problems have come and gone since the last look.
func (w *Watch) tellLocked(list []ctl.Problem) {
	told := make(map[string]string, len(list))
	for _, p := range list {
		key := fmt.Sprint(p.Alert, p.Labels)
		told[key] = p.Summary
		if _, known := w.told[key]; known {
			continue
		}
		level := slog.LevelWarn
		if p.Severity == "critical" {
			level = slog.LevelError
		}
		w.log.Log(context.Background(), level, p.Summary, "alert", p.Alert, "description", p.Description, "command", p.Command, "reason", p.Detail)
	}
	for _, key := range slices.Sorted(maps.Keys(w.told)) {
		if _, there := told[key]; !there {
			w.log.Info("no longer: " + w.told[key])
		}
	}
	w.told = told
}

// problem returns the words of a rule about a hit.
func (r *rule) problem(h hit) ctl.Problem {
	say := func(what string, as func(string) string) string {
		pairs := []string{"{{ $value | humanizePercentage }}", fmt.Sprintf("%.4g%%", h.value*100), "{{ $labels.instance }}", "this machine"}
		for name, value := range h.labels {
			pairs = append(pairs, "{{ $labels."+name+" }}", as(value))
		}
		return strings.NewReplacer(pairs...).Replace(strings.TrimSpace(r.Annotations[what]))
	}
	plain := func(s string) string { return s }
	return ctl.Problem{Alert: r.Alert, Severity: r.Labels["severity"], Labels: h.labels,
		Summary: say("summary", plain), Description: say("description", plain), Command: say("command", quote)}
}

var harmless = regexp.MustCompile(`^[\w./:=@%+,][\w./:=@%+,-]*$`)

// quote returns a word for the shell.
func quote(word string) string {
	if harmless.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
