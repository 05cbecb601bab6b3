package metrics

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"udm/packaging/prometheus"
)

// Problem is an alert that holds now, in the words of the rules for Prometheus.
type Problem struct {
	Alert       string            `json:"alert"`
	Severity    string            `json:"severity"` // critical or warning
	Labels      map[string]string `json:"labels"`
	Summary     string            `json:"summary"`
	Description string            `json:"description"`
	Command     string            `json:"command"` // fixes the cause; words in capitals are to be replaced
}

// Watch finds problems in the metrics of one daemon. It is safe for concurrent use.
type Watch struct {
	rules []rule

	mu    sync.Mutex
	last  time.Time            // guarded by mu; of the last look
	since map[string]time.Time // guarded by mu; since when a problem has been seen in every look
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
func NewWatch() (*Watch, error) {
	var f struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(prometheus.Rules, &f); err != nil {
		return nil, err
	}
	w := &Watch{since: make(map[string]time.Time)}
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
const forgetAfter = time.Minute

// Problems returns what is wrong according to metrics that were gathered at a time. The
// critical ones come first.
func (w *Watch) Problems(fs []*dto.MetricFamily, now time.Time) []Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.last) > forgetAfter {
		clear(w.since)
	}
	w.last = now
	all, since, found := figuresOf(fs), make(map[string]time.Time), make(map[string][]Problem)
	for _, r := range w.rules {
		for _, h := range r.holds(all) {
			key := fmt.Sprint(r.Alert, h.labels, h.state)
			if since[key] = now; !w.since[key].IsZero() {
				since[key] = w.since[key]
			}
			if now.Sub(since[key]) >= r.lasts() {
				p := r.problem(h)
				found[p.Severity] = append(found[p.Severity], p)
			}
		}
	}
	w.since = since
	return append(found["critical"], found["warning"]...)
}

// problem returns the words of a rule about a hit.
func (r *rule) problem(h hit) Problem {
	say := func(what string, as func(string) string) string {
		pairs := []string{"{{ $value | humanizePercentage }}", fmt.Sprintf("%.4g%%", h.value*100), "{{ $labels.instance }}", "this machine"}
		for name, value := range h.labels {
			pairs = append(pairs, "{{ $labels."+name+" }}", as(value))
		}
		return strings.NewReplacer(pairs...).Replace(strings.TrimSpace(r.Annotations[what]))
	}
	plain := func(s string) string { return s }
	return Problem{r.Alert, r.Labels["severity"], h.labels, say("summary", plain), say("description", plain), say("command", quote)}
}

var harmless = regexp.MustCompile(`^[\w./:=@%+,][\w./:=@%+,-]*$`)

// quote returns a word for the shell.
func quote(word string) string {
	if harmless.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// comparison is the form of most expressions: a metric, or its share of another one,
// compared with a number.
var comparison = regexp.MustCompile(`^(\w+)(?:\{(\w+)="(\w+)"\})?(?: / (\w+))? (==|>|<) ([\d.]+)$`)

// conditionOf returns what a rule's expression says about metrics of one moment; nil if that
// needs those of others.
func conditionOf(r rule) condition {
	if m := comparison.FindStringSubmatch(r.Expr); m != nil && strings.HasPrefix(m[1], "udm_") {
		number, _ := strconv.ParseFloat(m[6], 64) // the pattern has digits and dots only
		return func(f figures) []hit { return f.compare(m[1], m[2], m[3], m[4], m[5], number) }
	}
	return special[r.Alert]
}

// special are conditions of expressions with more than a comparison.
var special = map[string]condition{
	// Prometheus tells of recent errors. Those who look now want to know of all.
	"UdmDeviceErrors": func(f figures) []hit { return f.compare(deviceErrors.name, "", "", "", ">", 0) },
	"UdmSuspended": func(f figures) (hits []hit) {
		waiting := f.byDevice(deviceQueued)
		for _, h := range f.compare(suspended.name, "", "", "", "==", 1) {
			if waiting[h.labels["device"]] > 0 {
				hits = append(hits, h)
			}
		}
		return hits
	},
	"UdmDeviceStuck": func(f figures) (hits []hit) {
		done := f.byDevice(deviceSeconds)
		for _, h := range f.compare(deviceInFlight.name, "", "", "", ">", 0) {
			h.state = fmt.Sprint(done[h.labels["device"]])
			hits = append(hits, h)
		}
		return hits
	},
}
