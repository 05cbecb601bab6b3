package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"udm/ctl"
	"udm/ctl/server/metrics"
	"udm/ctl/server/service"
	"udm/targets/all"
	"udm/volume"
)

// rig is a service with its page.
type rig struct {
	*service.Service
	*testing.T
	page  http.Handler
	token string
}

func newRig(t *testing.T, operations bool) *rig {
	t.Helper()
	root := t.TempDir()
	s, err := service.New(service.Config{Root: root, Program: "v1", Types: all.Types()})
	if err == nil {
		err = s.Restore(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{Service: s, T: t}
	r.token, err = Token(root)
	r.must(err)
	log := slog.New(slog.DiscardHandler)
	watch, err := metrics.NewWatch(log)
	if err != nil {
		t.Fatal(err)
	}
	r.page, err = Handler(Config{Service: s, Root: root, Watch: watch, Token: r.token, Host: "disks.example", Operations: operations, Log: log})
	r.must(err)
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) create(name, table string) {
	r.Helper()
	_, err := r.Create(context.Background(), ctl.Create{Name: name, Table: table})
	r.must(err)
}

// ask sends a request with headers given as pairs.
func (r *rig) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	q := httptest.NewRequest(method, "http://127.0.0.1:9255"+path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			q.Host = headers[i+1]
		}
		q.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.page.ServeHTTP(w, q)
	return w
}

// authorized is the header with the token.
func (r *rig) authorized() []string { return []string{"Authorization", "Bearer " + r.token} }

func (r *rig) state() (s state) {
	r.Helper()
	w := r.ask("GET", "/api/state", "", r.authorized()...)
	r.must(json.Unmarshal(w.Body.Bytes(), &s))
	return s
}

// Nobody sees anything of a device without the token, from another site, or by another
// host's name; and every answer has the policy.
func TestWhoMaySee(t *testing.T) {
	r := newRig(t, true)
	r.create("secret-name", "0 8 linear mem:1M 0")
	token := "Bearer " + r.token
	for _, c := range []struct {
		what, method, path string
		status             int
		headers            []string
	}{
		{"the page", "GET", "/", 200, nil},
		{"a script", "GET", "/main.js", 200, nil},
		{"by name", "GET", "/", 200, []string{"Host", "localhost:1"}},
		{"by an address of IPv6", "GET", "/", 200, []string{"Host", "[::1]:1"}},
		{"by the configured name", "GET", "/", 200, []string{"Host", "Disks.example:80"}},
		{"by a stranger's name", "GET", "/", 421, []string{"Host", "evil.example"}},
		{"by a stranger's name, with the token", "GET", "/api/state", 421, []string{"Host", "evil.example", "Authorization", token}},
		{"by no name", "GET", "/", 421, []string{"Host", ""}},
		{"what is not there", "GET", "/nothing", 404, nil},
		{"a list of files", "GET", "/static/", 404, nil},
		{"outside", "GET", "/../web.go", 307, nil},
		{"a wrong method", "POST", "/", 405, nil},
		{"a wrong method of the state", "DELETE", "/api/state", 405, []string{"Authorization", token}},
		{"what the API has not", "GET", "/api/nothing", 404, []string{"Authorization", token}},
		{"without a token", "GET", "/api/state", 401, nil},
		{"without a token, what is not there", "GET", "/api/nothing", 401, nil},
		{"without a token, a device", "GET", "/api/device?name=secret-name", 401, nil},
		{"without a token, an operation", "POST", "/api/do/remove", 401, nil},
		{"with a wrong token", "GET", "/api/state", 401, []string{"Authorization", "Bearer " + strings.ToLower(r.token)}},
		{"with no token at all", "GET", "/api/state", 401, []string{"Authorization", "Bearer "}},
		{"with the token as a password", "GET", "/api/state", 401, []string{"Authorization", "Basic " + r.token}},
		{"from another site", "GET", "/api/state", 403, []string{"Authorization", token, "Origin", "http://evil.example"}},
		{"from another port", "GET", "/api/state", 403, []string{"Authorization", token, "Origin", "http://127.0.0.1:80"}},
		{"from a frame without an origin", "GET", "/api/state", 403, []string{"Authorization", token, "Origin", "null"}},
		{"from another site, as browsers say", "GET", "/api/state", 403, []string{"Authorization", token, "Sec-Fetch-Site", "same-site"}},
		{"from the page", "GET", "/api/state", 200, []string{"Authorization", token, "Origin", "http://127.0.0.1:9255", "Sec-Fetch-Site", "same-origin"}},
		{"a device", "GET", "/api/device?name=secret-name", 200, []string{"Authorization", token}},
		{"no such device", "GET", "/api/device?name=other", 404, []string{"Authorization", token}},
	} {
		w := r.ask(c.method, c.path, "", c.headers...)
		if w.Code != c.status {
			t.Errorf("%s: %d, want %d: %s", c.what, w.Code, c.status, w.Body)
		}
		if c.status != 200 && strings.Contains(w.Body.String(), "secret-name") && !strings.Contains(c.path, "other") {
			t.Errorf("%s tells a name: %s", c.what, w.Body)
		}
		for name, value := range policy {
			if name == "Cache-Control" && c.status == 404 { // net/http takes it away from errors
				continue
			}
			if w.Header().Get(name) != value {
				t.Errorf("%s: %s is %q", c.what, name, w.Header().Get(name))
			}
		}
		for _, name := range []string{"Set-Cookie", "Access-Control-Allow-Origin"} {
			if v := w.Header().Get(name); v != "" {
				t.Errorf("%s: %s is %q", c.what, name, v)
			}
		}
	}
}

// A token is made once, for its owner, and one that is none is not taken.
func TestToken(t *testing.T) {
	root := t.TempDir()
	if _, err := ReadToken(root); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	a, err := Token(root)
	b, again := Token(root)
	if err != nil || again != nil || a != b || len(a) < 40 {
		t.Errorf("%q and %q, %v, %v", a, b, err, again)
	}
	st, err := os.Stat(root + "/" + tokenFile)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	if err := os.WriteFile(root+"/"+tokenFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Token(root); err == nil {
		t.Error("an empty token is taken")
	}
	if es, err := os.ReadDir(root); err != nil || len(es) != 1 {
		t.Error(es, err)
	}
}

// The state has what stands on what, by the places in its lists, and the metrics' numbers.
func TestState(t *testing.T) {
	r, ctx := newRig(t, false), context.Background()
	r.create("below", "0 4096 linear mem:2M 0")
	r.create("part-1", "0 2048 linear /dev/mapper/below 0")
	r.create("part-2", "0 2048 linear /dev/mapper/below 2048")
	r.create("empty", "")
	r.must(r.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: 1 << 20}))
	r.must(r.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "vol", Size: 4 << 20}))
	s := r.state()
	at := make(map[string]int)
	for i, d := range s.Devices {
		at[d.Name] = i
	}
	if len(at) != 6 {
		t.Fatalf("%+v", s.Devices)
	}
	for name, below := range map[string]string{"part-1": "below", "part-2": "below", "vol": "pool"} {
		if on := s.Devices[at[name]].On; len(on) != 1 || on[0] != at[below] {
			t.Errorf("%s stands on %v", name, on)
		}
	}
	if d := s.Devices[at["below"]]; len(d.Disks) != 1 || s.Disks[d.Disks[0]].Users != 1 || d.State != "active" || d.Kind != "disk" {
		t.Errorf("%+v", d)
	}
	if d := s.Devices[at["vol"]]; d.Pool != "pool" || d.Kind != "volume" || s.Devices[at["empty"]].State != "no table" {
		t.Errorf("%+v", d)
	}
	r.sameAsMetrics(s)
}

// sameAsMetrics checks that each number of a state is that of the metrics, and none lacks.
func (r *rig) sameAsMetrics(s state) {
	r.Helper()
	fs, err := metrics.Families(context.Background(), metrics.Config{Service: r.Service, Root: s.Root})
	r.must(err)
	compared := 0
	for _, f := range fs {
		for _, m := range f.Metric {
			key, device := keyOf(f.GetName(), m)
			for i, d := range s.Devices {
				if d.Name != device || key == "" {
					continue
				}
				got, ok := s.Numbers[key][i].(float64)
				if list, is := s.Numbers[key][i].([]any); is {
					got, ok = list[0].(float64), true
				}
				if compared++; !ok || got != metrics.Value(m) {
					r.Errorf("%s of %s is %v, the metric %v", key, device, s.Numbers[key][i], metrics.Value(m))
				}
			}
		}
	}
	if compared < 50 {
		r.Errorf("%d numbers only", compared)
	}
}

// A page that only shows refuses operations; one that allows them does those that it has.
func TestOperations(t *testing.T) {
	ctx := context.Background()
	body := func(s string) (string, []string) { return s, []string{"Content-Type", "application/json"} }
	r := newRig(t, false)
	text, json := body(`{"name":"x"}`)
	if w := r.ask("POST", "/api/do/remove", text, append(r.authorized(), json...)...); w.Code != 403 || !strings.Contains(w.Body.String(), "--web-operations") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	r = newRig(t, true)
	r.must(r.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: 4 << 20}))
	r.must(r.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "vol", Size: 4 << 20}))
	for _, c := range []struct {
		do, body string
		status   int
	}{
		{"snapshot", `{"name":"vol","new":"before"}`, 200},
		{"snapshot", `{"name":"vol","new":"before"}`, 409}, // there is one
		{"resize", `{"name":"vol","size":8388608}`, 200},
		{"resize", `{"name":"vol","size":4096}`, 409}, // smaller
		{"remove", `{"name":"pool"}`, 409},            // it has volumes
		{"remove", `{"name":"before"}`, 200},
		{"remove", `{"name":"before"}`, 409},
		{"remove", `{"name":"vol","force":true}`, 400},
		{"remove", `name=vol`, 400},
		{"format", `{"name":"vol"}`, 404},
	} {
		w := r.ask("POST", "/api/do/"+c.do, c.body, append(r.authorized(), json...)...)
		if w.Code != c.status {
			t.Errorf("%s %s: %d %s", c.do, c.body, w.Code, w.Body)
		}
	}
	if w := r.ask("POST", "/api/do/remove", `{"name":"vol"}`, append(r.authorized(), "Content-Type", "text/plain")...); w.Code != 400 {
		t.Errorf("a form of another site: %d", w.Code)
	}
	if w := r.ask("GET", "/api/do/remove?name=vol", "", r.authorized()...); w.Code != 405 && w.Code != 404 {
		t.Errorf("a link: %d", w.Code)
	}
	if _, err := r.Object(ctx, ctl.Object{Name: "vol"}); err != nil {
		t.Error(err)
	}
	_, err := io.ReadAll(r.ask("GET", "/api/state", "", r.authorized()...).Body)
	r.must(err)
}
