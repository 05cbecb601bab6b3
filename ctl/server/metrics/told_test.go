package metrics_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"udm/ctl"
	"udm/ctl/server/metrics"
	"udm/ctl/server/web"
	"udm/test/need"
)

// machine is the name of the machine in the words of the daemon itself, and the instance that
// Prometheus is told of here.
const machine = "this machine"

// TestToldInTheSameWords causes faults. The alerts of each are raised, and no others, and
// Prometheus, the page, udm status and the log tell of it in the same words.
func TestToldInTheSameWords(t *testing.T) {
	need.Tools(t, "promtool")
	for _, name := range metrics.Faults() {
		t.Run(name, func(t *testing.T) {
			r := &teller{Rig: metrics.NewRig(t), t: t}
			before := r.Samples()
			want := r.Cause(name)
			after := r.Samples()
			told := r.anHour()
			if got := alertsOf(told); !slices.Equal(got, want) {
				t.Fatalf("the problems are %v, the alerts %v", got, want)
			}
			r.prometheusSays(before, after, told)
			r.statusSays(told)
			r.pageSays(told)
			r.logSays(told)
		})
	}
}

// teller is a service whose problems are looked for.
type teller struct {
	*metrics.Rig
	t     *testing.T
	watch *metrics.Watch
	log   bytes.Buffer
}

func (r *teller) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// anHour returns the problems that somebody sees who has looked every half minute for an hour.
func (r *teller) anHour() (list []ctl.Problem) {
	r.t.Helper()
	var err error
	r.watch, err = metrics.NewWatch(slog.New(slog.NewJSONHandler(&r.log, nil)))
	r.must(err)
	fs, err := metrics.Families(context.Background(), r.Config())
	r.must(err)
	ds, err := r.Config().Service.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithDeps}, Noflush: true})
	r.must(err)
	now := time.Now()
	for at := now.Add(-65 * time.Minute); at.Before(now); at = at.Add(30 * time.Second) {
		list = r.watch.Problems(metrics.Seen{Families: fs, Devices: ds}, at)
	}
	for _, p := range list {
		if p.Summary == "" || p.Description == "" || p.Command == "" || strings.Contains(p.Summary+p.Description+p.Command, "{{") {
			r.t.Errorf("%+v", p)
		}
	}
	return list
}

func alertsOf(list []ctl.Problem) (names []string) {
	for _, p := range list {
		names = append(names, p.Alert)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// prometheusSays has Prometheus evaluate the rules on series that change from before to after
// and stay there for an hour.
func (r *teller) prometheusSays(before, after map[string]float64, told []ctl.Problem) {
	r.t.Helper()
	rules, err := filepath.Abs("../../../packaging/prometheus/udm.rules.yml")
	r.must(err)
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%q]\ntests:\n  - interval: 1m\n    input_series:\n", rules)
	for _, line := range slices.Sorted(maps.Keys(after)) {
		fmt.Fprintf(&b, "      - series: %q\n        values: '%v %v+0x70'\n", onMachine(line), before[line], after[line])
	}
	b.WriteString("    alert_rule_test:\n")
	for _, alert := range metrics.Alerts(r.t) {
		at := "65m"
		if alert == "UdmDeviceErrors" { // counts only recent errors
			at = "3m"
		}
		fmt.Fprintf(&b, "      - {eval_time: %s, alertname: %s, exp_alerts: %s}\n", at, alert, r.firing(alert, told))
	}
	metrics.Promtool(r.t, b.String(), "test", "rules")
}

// onMachine returns a series of a machine.
func onMachine(series string) string {
	label := `instance="` + machine + `"`
	if name, labels, ok := strings.Cut(series, "{"); ok {
		return name + "{" + label + ", " + labels
	}
	return series + "{" + label + "}"
}

// firing returns what promtool is to expect of an alert, as JSON, which is YAML.
func (r *teller) firing(alert string, told []ctl.Problem) string {
	r.t.Helper()
	type firing struct {
		Labels      map[string]string `json:"exp_labels"`
		Annotations map[string]string `json:"exp_annotations"`
	}
	list := []firing{}
	for _, p := range told {
		if p.Alert != alert {
			continue
		}
		labels := maps.Clone(p.Labels)
		labels["severity"], labels["instance"] = p.Severity, machine
		list = append(list, firing{labels, map[string]string{"summary": p.Summary, "description": p.Description, "command": p.Command}})
	}
	text, err := json.Marshal(list)
	r.must(err)
	return string(text)
}

// statusSays compares what udm status is told.
func (r *teller) statusSays(told []ctl.Problem) {
	r.t.Helper()
	got, err := r.watch.Look(context.Background(), r.Config())
	r.must(err)
	r.same("udm status", got, told)
}

func (r *teller) same(who string, got, want []ctl.Problem) {
	r.t.Helper()
	if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
		r.t.Errorf("%s says\n%+v\nwant\n%+v", who, got, want)
	}
}

// pageSays compares what the page is told.
func (r *teller) pageSays(told []ctl.Problem) {
	r.t.Helper()
	token := strings.Repeat("T", 52)
	c := r.Config()
	h, err := web.Handler(web.Config{Service: c.Service, Root: c.Root, Watch: r.watch, Token: token, Log: c.Log})
	r.must(err)
	w, ask := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://localhost/api/state", nil)
	ask.Header.Set("Authorization", "Bearer "+token)
	h.ServeHTTP(w, ask)
	var state struct{ Problems []ctl.Problem }
	r.must(json.Unmarshal(w.Body.Bytes(), &state))
	r.same("the page", state.Problems, told)
}

// logSays checks that the log has each problem once, and nothing else.
func (r *teller) logSays(told []ctl.Problem) {
	r.t.Helper()
	type line struct{ Level, Msg, Alert, Description, Command, Reason string }
	var got, want []line
	for text := range strings.Lines(r.log.String()) {
		var l line
		r.must(json.Unmarshal([]byte(text), &l))
		got = append(got, l)
	}
	for _, p := range told {
		level := map[string]string{"critical": "ERROR", "warning": "WARN"}[p.Severity]
		want = append(want, line{level, p.Summary, p.Alert, p.Description, p.Command, p.Detail})
	}
	compare := func(a, b line) int { return strings.Compare(a.Alert+a.Msg, b.Alert+b.Msg) }
	slices.SortFunc(got, compare)
	slices.SortFunc(want, compare)
	if !slices.Equal(got, want) {
		r.t.Errorf("the log says\n%+v\nwant\n%+v", got, want)
	}
}

// What is over is told once, and what comes again is told again.
func TestNoLonger(t *testing.T) {
	r := &teller{Rig: metrics.NewRig(t), t: t}
	r.Cause("lost snapshot")
	list := r.anHour()
	if len(list) != 1 {
		t.Fatalf("%+v", list)
	}
	bad, err := metrics.Families(context.Background(), r.Config())
	r.must(err)
	for _, seen := range []metrics.Seen{{}, {}, {Families: bad}, {}} {
		r.watch.Problems(seen, time.Now())
	}
	var said []string
	for text := range strings.Lines(r.log.String()) {
		var l struct{ Msg string }
		r.must(json.Unmarshal([]byte(text), &l))
		said = append(said, l.Msg)
	}
	is, over := list[0].Summary, "no longer: "+list[0].Summary
	if !slices.Equal(said, []string{is, over, is, over}) {
		t.Errorf("the log says %q", said)
	}
}
