package metrics

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/env"
	"udm/targets/all"
	"udm/test/need"
	"udm/volume"
)

const openMetrics = "application/openmetrics-text; version=1.0.0"

func handler(s ctl.Service) http.Handler {
	return Handler(Config{Service: s, Root: "/", Log: slog.New(slog.DiscardHandler)})
}

// rig is a service and the source of its metrics.
type rig struct {
	*service.Service
	t      *testing.T
	source *source
	dead   bool // a device cannot be flushed, so that closing fails
}

func newRig(t *testing.T) *rig {
	t.Helper()
	hostSpace = func(string) (space, error) { return space{free: 50, size: 100}, nil } // whatever the machine has
	t.Cleanup(func() { hostSpace = spaceOf })
	root := t.TempDir()
	s, err := service.New(service.Config{Root: root, Program: "v1", Types: all.Types()})
	if err == nil {
		err = s.Restore(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Service: s, t: t, source: newSource(Config{Service: s, Root: root, Log: slog.New(slog.DiscardHandler)})}
	t.Cleanup(func() {
		s.FailSuspended()
		if err := s.Close(); err != nil && !r.dead {
			t.Error(err)
		}
	})
	_, err = s.Stats(context.Background())
	r.must(err)
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) create(name, table string) {
	r.t.Helper()
	_, err := r.Create(context.Background(), ctl.Create{Name: name, Table: table})
	r.must(err)
}

// pool creates a pool of 1 MiB with a larger volume.
func (r *rig) pool() {
	r.t.Helper()
	ctx := context.Background()
	r.must(r.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: 1 << 20, FailWhenFull: true}))
	r.must(r.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "vol", Size: 4 << 20}))
}

// write writes zeroes at the start of a device.
func (r *rig) write(name string, bytes int) error {
	r.t.Helper()
	d, err := r.Open(ctl.Ref{Name: name}, true)
	r.must(err)
	return errors.Join(blk.WriteSectors(env.Real(), d, make([]byte, bytes), 0, blk.FUA), d.Close())
}

// samples returns the values of one scrape, by name and labels.
func (r *rig) samples() map[string]float64 {
	r.t.Helper()
	text, err := r.source.text()
	r.must(err)
	return parse(r.t, text)
}

// text returns one scrape in the text format.
func (s *source) text() (string, error) {
	families, err := s.Gather()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// parse parses the text format. A duplicate series is an error.
func parse(t *testing.T, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		vector, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range vector {
			if _, twice := out[s.Metric.String()]; twice {
				t.Errorf("%s occurs twice", s.Metric)
			}
			out[s.Metric.String()] = float64(s.Value)
		}
	}
	return out
}

// TestMetrics compares the values with what was done, on devices with all kinds of names.
func TestMetrics(t *testing.T) {
	r := newRig(t)
	r.pool()
	r.must(r.write("vol", 1<<16))
	hostile := "a\"b\n<i>\\ü"
	broken := "\xff\xfe"
	for _, name := range []string{hostile, broken} {
		r.create(name, "0 8 linear mem:1M 0")
	}
	r.must(r.write(hostile, 512))
	image := filepath.Join(t.TempDir(), "image")
	r.must(os.WriteFile(image, make([]byte, 1<<20), 0o600))
	r.must(r.Clone(context.Background(), volume.CloneSpec{Base: image, Names: []string{"clone"}}))
	r.create("cache", "0 2048 cache mem:1M mem:1M mem:1M 64 0 smq 0")
	r.must(r.write("cache", 512))
	r.create("writecache", "0 2048 writecache s mem:1M mem:2M 4096 0")
	r.must(r.write("writecache", 8192))
	r.paths("fail_path mem:1M:b")
	got := r.samples()
	for line, want := range map[string]float64{
		`udm_cache_bytes{device="cache"}`:                                   1 << 20,
		`udm_cache_hits_total{device="cache", op="write"}`:                  0,
		`udm_cache_misses_total{device="cache", op="write"}`:                1,
		`udm_cache_needs_check{device="cache"}`:                             0,
		`udm_cache_used_bytes{device="writecache"}`:                         8192,
		`udm_cache_hits_total{device="writecache", op="write"}`:             0,
		`udm_cache_misses_total{device="writecache", op="write"}`:           2,
		`udm_cache_failed{device="writecache"}`:                             0,
		`udm_path_failed{device="both", path="mem:1M:a"}`:                   0,
		`udm_path_failed{device="both", path="mem:1M:b"}`:                   1,
		`udm_usable_paths{device="both"}`:                                   1,
		`udm_devices`:                                                       8,
		`udm_device_size_bytes{device="vol"}`:                               4 << 20,
		`udm_device_bytes_total{device="vol", op="write"}`:                  1 << 16,
		`udm_device_errors_total{device="vol", op="read"}`:                  0,
		`udm_device_bytes_total{device="a\"b\n<i>\\ü", op="write"}`:         512,
		`udm_device_io_seconds_count{device="a\"b\n<i>\\ü", op="write"}`:    1,
		`udm_device_users{device="\\xff\\xfe"}`:                             0,
		`udm_pool_data_bytes{device="pool"}`:                                1 << 20,
		`udm_pool_data_used_bytes{device="pool"}`:                           1 << 16,
		`udm_pool_mode{device="pool", mode="rw"}`:                           1,
		`udm_pool_mode{device="pool", mode="out_of_data_space"}`:            0,
		`udm_pool_needs_check{device="pool"}`:                               0,
		`udm_volume_mapped_bytes{device="vol"}`:                             1 << 16,
		`udm_store_full{device="clone"}`:                                    0,
		`udm_operations`:                                                    0,
		`udm_restoring`:                                                     0,
		`udm_device_io_seconds_bucket{device="vol", le="+Inf", op="write"}`: 1,
	} {
		if v, ok := got[line]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", line, v, ok, want)
		}
	}
	if got[`udm_pool_commit_seconds_count{device="pool"}`] < 1 || got[`udm_store_used_bytes{device="clone"}`] < 1 || got["go_goroutines"] < 1 {
		t.Errorf("%v", got)
	}
	r.must(r.Remove(context.Background(), ctl.Remove{Ref: ctl.Ref{Name: hostile}}))
	for line := range r.samples() {
		if strings.Contains(line, "<i>") {
			t.Errorf("%s of a removed device", line)
		}
	}
}

// TestFormats checks that clients get the format that they accept, and that promtool accepts
// it.
func TestFormats(t *testing.T) {
	need.Tools(t, "promtool")
	r := newRig(t)
	r.pool()
	r.must(r.write("vol", 1<<16))
	h := handler(r)
	for _, accept := range []string{"", openMetrics} {
		w := get(h, "/metrics", accept)
		if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "# EOF") != (accept != "") {
			t.Errorf("%q: %d %.300s", accept, w.Code, w.Body)
		}
		if accept == "" {
			c := exec.Command("promtool", "check", "metrics")
			c.Stdin = w.Body
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	}
	for path, code := range map[string]int{"/healthz": 200, "/readyz": 200, "/": 404} {
		if w := get(h, path, ""); w.Code != code {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// restarting is a service that is not ready.
type restarting struct{ ctl.Service }

func (restarting) Version(context.Context) (ctl.Version, error) {
	return ctl.Version{Restoring: &ctl.Progress{Done: 3, Total: 10}}, nil
}

func TestNotReady(t *testing.T) {
	h := handler(restarting{})
	if w := get(h, "/readyz", ""); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "3 of 10") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get(h, "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// get sends a GET request to a handler.
func get(h http.Handler, path, accept string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://udm"+path, nil)
	r.Header.Set("Accept", accept)
	h.ServeHTTP(w, r)
	return w
}
