package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"udm/blk"
	"udm/ctl"
	"udm/test/need"
)

const packaging = "../../../packaging"

// alert is an alerting rule of Prometheus.
type alert struct {
	Alert, Expr, For string
	Annotations      map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(packaging, "prometheus/udm.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	return f.Groups[0].Rules
}

// promtool runs promtool on a file with the given text.
func promtool(t *testing.T, text string, args ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", append(args, path)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRules(t *testing.T) {
	need.Tools(t, "promtool")
	text, err := os.ReadFile(filepath.Join(packaging, "prometheus/udm.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, string(text), "check", "rules")
	for _, a := range alerts(t) {
		checkNames(t, a.Expr)
		for _, what := range []string{"summary", "description", "command"} {
			if a.Annotations[what] == "" {
				t.Errorf("%s has no %s", a.Alert, what)
			}
		}
	}
}

var ours = regexp.MustCompile(`\budm_\w+`)

// checkNames checks that an expression uses only metrics that exist.
func checkNames(t *testing.T, expr string) {
	t.Helper()
	for _, name := range ours.FindAllString(expr, -1) {
		if !slices.ContainsFunc(families, func(m *metric) bool {
			return name == m.name || slices.Contains([]string{m.name + "_bucket", m.name + "_count", m.name + "_sum"}, name)
		}) {
			t.Errorf("no metric is named %s: %s", name, expr)
		}
	}
}

// TestDashboard checks that the panels' queries are valid and use only metrics that exist.
func TestDashboard(t *testing.T) {
	need.Tools(t, "promtool")
	text, err := os.ReadFile(filepath.Join(packaging, "grafana/udm.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for i, p := range d.Panels {
		for j, target := range p.Targets {
			checkNames(t, target.Expr)
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$device", ".*").Replace(target.Expr)
			rules += fmt.Sprintf("      - record: panel:%d:%d\n        expr: '%s'\n", i, j, expr)
		}
	}
	if len(d.Panels) < 10 {
		t.Errorf("%d panels", len(d.Panels))
	}
	promtool(t, rules, "check", "rules")
}

// lost adds a remote disk that does not answer to a service.
type lost struct{ ctl.Service }

func (l lost) List(ctx context.Context, q ctl.Query) ([]ctl.Device, error) {
	ds, err := l.Service.List(ctx, q)
	dep := ctl.Dep{Source: "nbd://far/disk", Report: &blk.Report{State: "connecting", UnderWay: 1}}
	return append(ds, ctl.Device{Name: "far", Deps: []ctl.Dep{dep}, Waiting: "disk"}), err
}

// deadClient adds a client that does not take its answers to a service.
type deadClient struct{ ctl.Service }

func (d deadClient) FrontEnds(ctx context.Context) ([]ctl.FrontEnd, error) {
	list, err := d.Service.FrontEnds(ctx)
	clients := []ctl.FrontEndClient{{Device: "x", Stalled: stalledFor}, {Device: "y", Stalled: stalledFor - 1}}
	return append(list, ctl.FrontEnd{Name: "nbd-tcp", Clients: clients}), err
}

// faults cause the listed alerts.
var faults = map[string]struct {
	alerts []string
	make   func(*rig)
}{
	"none": {nil, func(r *rig) { r.pool() }},
	"full pool": {[]string{"UdmPoolDataFilling", "UdmPoolOutOfSpace", "UdmDeviceErrors"}, func(r *rig) {
		r.pool()
		if r.write("vol", 2<<20) == nil {
			r.t.Error("a write succeeded without space")
		}
	}},
	"little metadata": {[]string{"UdmPoolMetadataFilling"}, func(r *rig) {
		r.create("pool", "0 2048 thin-pool mem:256K:meta mem:1M 128 0")
		for id := range 40 { // a block each
			_, err := r.Message(context.Background(), ctl.Message{Ref: ctl.Ref{Name: "pool"}, Text: fmt.Sprint("create_thin ", id)})
			r.must(err)
		}
	}},
	"dead metadata": {[]string{"UdmPoolNeedsCheck", "UdmDeviceErrors"}, func(r *rig) {
		r.create("meta", "0 4096 linear mem:2M:meta 0")
		r.create("pool", "0 2048 thin-pool /dev/mapper/meta mem:1M 128 0")
		ctx := context.Background()
		_, err := r.Message(ctx, ctl.Message{Ref: ctl.Ref{Name: "pool"}, Text: "create_thin 0"})
		r.must(err)
		r.create("vol", "0 2048 thin /dev/mapper/pool 0")
		r.reload("meta", "0 4096 error")
		if r.write("vol", 512) == nil {
			r.t.Error("a write succeeded without metadata")
		}
		r.dead = true
	}},
	"full host": {[]string{"UdmHostFilling"}, func(r *rig) {
		hostSpace = func(string) (space, error) { return space{free: 1, size: 100}, nil }
	}},
	"lost disk":   {[]string{"UdmDiskLost", "UdmTableMissing"}, func(r *rig) { r.source.Service = lost{r} }},
	"dead client": {[]string{"UdmClientStalled"}, func(r *rig) { r.source.Service = deadClient{r} }},
	"restarting":  {[]string{"UdmRestoring"}, func(r *rig) { r.source.Service = notReady{r} }},
	"suspended": {[]string{"UdmSuspended"}, func(r *rig) {
		r.create("still", "0 8 linear mem:1M 0")
		_, err := r.Suspend(context.Background(), ctl.Suspend{Ref: ctl.Ref{Name: "still"}})
		r.must(err)
		r.hang("still", r.Resume)
	}},
	"slow disk": {[]string{"UdmDeviceStuck"}, func(r *rig) {
		r.create("slow", "0 8 delay mem:1M 0 3600000")
		r.hang("slow", r.Suspend) // a suspend sends delayed bios
	}},
	"failed path": {[]string{"UdmPathFailed"}, func(r *rig) { r.paths("fail_path mem:1M:a") }},
	"no path": {[]string{"UdmNoPath", "UdmPathFailed"}, func(r *rig) {
		r.paths("fail_path mem:1M:a", "fail_path mem:1M:b")
		r.dead = true
	}},
	"held root": {[]string{"UdmPoolHeldRoot"}, func(r *rig) {
		r.pool()
		_, err := r.Message(context.Background(), ctl.Message{Ref: ctl.Ref{Name: "pool"}, Text: "reserve_metadata_snap"})
		r.must(err)
	}},
	"lost snapshot": {[]string{"UdmSnapshotLost"}, func(r *rig) {
		r.create("base", "0 2048 linear mem:1M:base 0")
		r.create("night", "0 2048 snapshot /dev/mapper/base mem:64K:store P 8")
		r.create("front", "0 2048 snapshot-origin /dev/mapper/base")
		r.must(r.write("front", 1<<20))
	}},
	"stuck merge": {[]string{"UdmMergeFailed", "UdmDeviceErrors"}, func(r *rig) {
		r.create("base", "0 2048 linear mem:1M:base 0")
		r.create("night", "0 2048 snapshot /dev/mapper/base mem:1M:store P 8")
		r.must(r.write("night", 4096))
		r.reload("base", "0 2048 error")
		r.reload("night", "0 2048 snapshot-merge /dev/mapper/base mem:1M:store P 8")
		for !strings.Contains(r.status("night"), "Merge failed") {
			runtime.Gosched() // the merge runs by itself
		}
	}},
	"full store": {[]string{"UdmStoreFull", "UdmDeviceErrors"}, func(r *rig) {
		r.create("base", "0 2048 linear mem:1M:base 0")
		r.create("clone", "0 2048 snapshot /dev/mapper/base mem:64K:store PO 8")
		if r.write("clone", 1<<20) == nil {
			r.t.Error("a write succeeded with a full store")
		}
	}},
}

// paths makes a device with two paths and sends it messages.
func (r *rig) paths(messages ...string) {
	r.t.Helper()
	r.create("both", "0 2048 multipath 0 0 1 1 round-robin 0 2 1 mem:1M:a 1 mem:1M:b 1")
	for _, text := range messages {
		_, err := r.Message(context.Background(), ctl.Message{Ref: ctl.Ref{Name: "both"}, Text: text})
		r.must(err)
	}
}

// reload gives a device another table.
func (r *rig) reload(name, table string) {
	r.t.Helper()
	_, err := r.Load(context.Background(), ctl.Load{Ref: ctl.Ref{Name: name}, Table: table})
	r.must(err)
	_, err = r.Resume(context.Background(), ctl.Suspend{Ref: ctl.Ref{Name: name}})
	r.must(err)
}

// status returns the status line of a device.
func (r *rig) status(name string) string {
	r.t.Helper()
	d, err := r.Device(context.Background(), ctl.Query{Ref: ctl.Ref{Name: name}, With: []ctl.With{ctl.WithStatus}})
	r.must(err)
	return d.Status[0].Params
}

// hang starts a read that hangs until the end of the test, when free lets it complete.
func (r *rig) hang(name string, free func(context.Context, ctl.Suspend) (ctl.Device, error)) {
	r.t.Helper()
	d, err := r.Open(ctl.Ref{Name: name}, false)
	r.must(err)
	ended := make(chan bool)
	b := &blk.Bio{Op: blk.Read, End: func(*blk.Bio) { close(ended) }}
	b.SetData(make([]byte, blk.SectorSize))
	d.Submit(b)
	r.t.Cleanup(func() {
		_, err := free(context.Background(), ctl.Suspend{Ref: ctl.Ref{Name: name}})
		<-ended
		if err != nil || d.Close() != nil {
			r.t.Error(err)
		}
	})
}

// notReady is a service that is still restoring its devices.
type notReady struct{ ctl.Service }

func (notReady) Version(ctx context.Context) (ctl.Version, error) {
	return restarting{}.Version(ctx)
}

// Alerts that the page cannot tell are known, and times that words name have passed.
func TestWatch(t *testing.T) {
	w, err := NewWatch(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var unknown []string
	for _, a := range alerts(t) {
		if !slices.ContainsFunc(w.rules, func(r rule) bool { return r.Alert == a.Alert }) {
			unknown = append(unknown, a.Alert)
		}
	}
	if want := []string{"UdmDown", "UdmSlowCommits"}; !slices.Equal(unknown, want) {
		t.Errorf("the page does not tell %v, want %v", unknown, want)
	}
	r := newRig(t)
	faults["held root"].make(r)
	fs, err := r.source.Gather()
	r.must(err)
	for _, at := range []struct {
		seconds time.Duration
		want    int
	}{{0, 0}, {30, 0}, {3600, 0}, {3630, 0}} { // the second look and the third are too far apart
		if ps := w.Problems(Seen{Families: fs}, time.Unix(0, 0).Add(at.seconds*time.Second)); len(ps) != at.want {
			t.Errorf("after %d s: %+v", at.seconds, ps)
		}
	}
}

// Names in commands are words for the shell, whatever is in them.
func TestCommandsAreQuoted(t *testing.T) {
	for name, want := range map[string]string{"web-1": "web-1", "-rf": "'-rf'", "a b": "'a b'", "$(reboot)": "'$(reboot)'", "it's": `'it'\''s'`, "": "''"} {
		if got := quote(name); got != want {
			t.Errorf("%q becomes %s, want %s", name, got, want)
		}
	}
}

// TestDocument checks that docs/operating.md lists every metric with its kind and help.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families {
		row := fmt.Sprintf("| `%s` | %s |", m.name, strings.ToLower(m.kind.String()))
		if !strings.Contains(string(text), row) || !strings.Contains(string(text), m.help) {
			t.Errorf("docs/operating.md lacks %s %s", row, m.help)
		}
	}
}
