//go:build chromium

package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server"
	"udm/volume"
)

// shown holds once the page shows a state.
const shown = `document.querySelector("#page:not([hidden])") && udm.state && udm.graph.view`

// quiet checks that the page has not complained: no error, nothing against its policy.
func (p *page) quiet() {
	p.Helper()
	if said := p.complaints(); len(said) > 0 {
		p.Errorf("the page complains: %s", strings.Join(said, "\n"))
	}
}

// pick selects a block by its name.
func pick(p *page, name string) {
	p.Helper()
	p.eval(`udm.graph.select(udm.graph.blocks.find(b => b.name === ` + quote(name) + `), true)`)
}

// next waits for the state after the present one.
func (p *page) next() {
	p.Helper()
	p.eval(`void (window.before = udm.state)`) // its value would be sent here
	p.until(`udm.state !== window.before`)
}

// metrics returns what the daemon tells Prometheus.
func (r *rig) metrics() map[string]*dto.MetricFamily {
	r.Helper()
	a, err := http.Get("http://" + r.addresses["metrics"] + "/metrics")
	must(r, err)
	defer a.Body.Close()
	p := expfmt.NewTextParser(model.UTF8Validation)
	fs, err := p.TextToMetricFamilies(a.Body)
	must(r, err)
	return fs
}

// TestNumbers compares each number on the page with the metric that it names.
func TestNumbers(t *testing.T) {
	r := newRig(t, server.Config{Metrics: "localhost:0"})
	r.town()
	p := open(t, 1280, 900, false)
	p.visit(r.at(), shown)
	r.read("web-01", 0, 1<<20)
	p.next()
	p.next() // which is of after the read
	fs, seen := r.metrics(), make(map[string]bool)
	for _, name := range []string{"web-01", "fast", "db", "logs", "striped", "web-14"} {
		pick(p, name)
		for _, n := range get[[]struct{ Metric, Device, Text, End, Op, Directory string }](p, `[...document.querySelectorAll("data[data-metric]")].map(e => ({ metric: e.dataset.metric,
			device: e.dataset.device || "", directory: e.dataset.directory || "", end: e.dataset.frontEnd || "", text: e.getAttribute("value") }))`) {
			seen[n.Metric] = true
			family, op, _ := strings.Cut(strings.TrimSuffix(n.Metric, "}"), "{")
			if n.End == "metrics" || family == "udm_host_free_bytes" {
				continue // the scrape is a client itself, and others use the disk, too
			}
			if want := valueOf(fs[family], n.Device+n.End+n.Directory, op); fmt.Sprint(want) != n.Text {
				t.Errorf("%s of %q is %s on the page and %v in the metrics", n.Metric, n.Device+n.End, n.Text, want)
			}
		}
	}
	if len(seen) < 15 {
		t.Errorf("there are only %v", seen)
	}
	p.quiet()
}

// valueOf returns the value of a metric whose labels are an object and an op, as JavaScript
// writes it.
func valueOf(f *dto.MetricFamily, object, op string) json.Number {
	for _, m := range f.GetMetric() {
		has := make(map[string]bool)
		for _, l := range m.Label {
			has[l.GetValue()] = true
		}
		if !has[object] || op != "" && !has[op] {
			continue
		}
		v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue() + float64(m.GetHistogram().GetSampleCount())
		text, err := json.Marshal(v)
		if err == nil {
			return json.Number(text)
		}
	}
	return "nothing"
}

// hostile are names that want to be more than text.
var hostile = []string{
	`<img src=x onerror=canary=1>`, `"><script>canary=1<` + `script>`, "line\nbreak", "a\u202etxt.exe", "zero\u200bwidth", "bell\x07\x1b[31m", `${canary=1}`, "名前", "javascript:canary=1", strings.Repeat("W", 100),
}

// TestHostileNames shows names as text, with the characters that nobody sees.
func TestHostileNames(t *testing.T) {
	r := newRig(t, server.Config{WebOperations: true})
	made := 0
	for _, name := range hostile {
		if _, err := r.Create(ctx, ctl.Create{Name: name, Table: "0 8 linear mem:1M 0"}); err == nil {
			made++
		} else {
			t.Logf("%q is no name: %v", name, err)
		}
	}
	if made < 8 {
		t.Errorf("only %d names are possible", made)
	}
	p := open(t, 1280, 900, false)
	p.visit(r.at(), shown)
	for i := range get[int](p, `udm.state.devices.length`) {
		p.eval(fmt.Sprintf(`udm.graph.select(udm.graph.blocks[%d], true)`, i))
		text := get[string](p, `document.querySelector("#details .title").textContent`)
		if strings.ContainsAny(text, "\n\x07\x1b\u202e\u200b") || text == "" {
			t.Errorf("%q has characters that nobody sees", text)
		}
		p.eval(`document.querySelector("[data-do=remove]").click()`)
		if asked := get[string](p, `document.getElementById("ask-text").textContent`); !strings.Contains(asked, text) {
			t.Errorf("%q is not in %q", text, asked)
		}
		p.eval(`document.getElementById("ask-no").click()`)
	}
	for _, want := range []string{`line\nbreak`, `a\u{202e}txt.exe`, `<img src=x onerror=canary=1>`} {
		p.eval(`document.getElementById("search").value = ""; document.getElementById("search").dispatchEvent(new Event("input"))`)
		p.eval(`document.getElementById("search").value = ` + quote(want[:2]) + `; document.getElementById("search").dispatchEvent(new Event("input"))`)
		if found := get[string](p, `document.getElementById("found").textContent`); !strings.Contains(found, want) {
			t.Errorf("%q is not found: %q", want, found)
		}
	}
	if wide := get[bool](p, `document.documentElement.scrollWidth > innerWidth`); wide {
		t.Error("a long name makes the page wider than the window")
	}
	if ran := get[bool](p, `"canary" in window || document.querySelector("main img, main script") !== null`); ran {
		t.Error("a name was run")
	}
	p.quiet()
}

// TestWhoSees opens the page in all ways that must show nothing.
func TestWhoSees(t *testing.T) {
	r := newRig(t, server.Config{WebOperations: true})
	r.create("secret-name", "0 8 linear mem:1M 0")
	p := open(t, 1280, 900, false)
	for what, address := range map[string]string{"no token": "http://" + r.address() + "/", "a wrong token": "http://" + r.address() + "/#" + strings.Repeat("A", 52)} {
		p.visit("about:blank", "true")
		p.visit(address, `!document.getElementById("trouble").hidden`)
		if html := get[string](p, `document.documentElement.outerHTML + Object.keys(udm.state || {})`); strings.Contains(html, "secret-name") {
			t.Errorf("%s shows %s", what, html)
		}
		if trouble := get[string](p, `document.getElementById("trouble").textContent`); !strings.Contains(trouble, "udm web") {
			t.Errorf("%s: the page says %q", what, trouble)
		}
	}
	// A stranger's name that leads to this machine.
	p.do("Page.navigate", map[string]any{"url": strings.Replace(r.at(), "127.0.0.1", "rebound.test", 1)})
	p.until(`document.body.textContent.includes("host name")`)
	p.visit(r.at(), shown)
	if hash := get[string](p, `location.hash + document.cookie`); hash != "" {
		t.Errorf("the token is still in the address or in a cookie: %s", hash)
	}
	p.do("Page.reload", nil)
	p.until(shown) // the tab has the token
	// Another site, even with the token, and even as a frame.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<title>other</title>") }))
	defer other.Close()
	evil := open(t, 800, 600, false)
	evil.visit(other.URL, `document.title === "other"`)
	for _, try := range []string{
		`fetch("http://` + r.address() + `/api/state", { headers: { Authorization: "Bearer ` + r.token + `" } })`,
		`fetch("http://` + r.address() + `/api/do/remove", { method: "POST", mode: "cors", headers: { Authorization: "Bearer ` + r.token + `", "Content-Type": "application/json" }, body: '{"name":"secret-name"}' })`,
		`fetch("http://` + r.address() + `/main.js")`,
	} {
		if got := get[string](evil, try+`.then(a => "read " + a.status, e => "refused")`); got != "refused" {
			t.Errorf("another site: %s: %s", try, got)
		}
	}
	evil.eval(`new Promise(done => { const f = document.createElement("iframe"); f.onload = f.onerror = () => done(true); f.src = "http://` + r.address() + `/"; document.body.append(f) })`)
	if framed := get[bool](evil, `(() => { try { return frames[0].document.title === "udm" } catch { return false } })()`); framed {
		t.Error("another site has the page in a frame")
	}
	if _, err := r.Object(ctx, ctl.Object{Name: "secret-name"}); err != nil {
		t.Error("another site removed a device:", err)
	}
}

// TestOperations takes and removes a snapshot on the page, by keys alone.
func TestOperations(t *testing.T) {
	r := newRig(t, server.Config{WebOperations: true})
	must(t, r.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: 4 << 20}))
	must(t, r.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "vol", Size: 4 << 20}))
	p := open(t, 1280, 900, false)
	p.visit(r.at(), shown)
	pick(p, "vol")
	p.until(`document.querySelector("[data-do=snapshot]")`)
	p.eval(`document.querySelector("[data-do=snapshot]").focus()`)
	p.keys("Enter")
	p.until(`document.activeElement.name === "new"`)
	p.keys("Tab", "Tab", "Enter")
	p.until(`udm.state.devices.some(d => d.name === "vol-snap")`)
	pick(p, "vol-snap")
	p.eval(`document.querySelector("[data-do=remove]").focus()`)
	p.keys("Enter")
	if text := get[string](p, `document.getElementById("ask-text").textContent`); !strings.Contains(text, "vol-snap will be gone") {
		t.Errorf("it says %q", text)
	}
	if at := get[string](p, `document.activeElement.id`); at != "ask-no" {
		t.Errorf("the answer at hand is %s", at)
	}
	p.keys("Tab", "Enter")
	p.until(`!udm.state.devices.some(d => d.name === "vol-snap")`)
	var none *ctl.Error
	if _, err := r.Object(ctx, ctl.Object{Name: "vol-snap"}); err == nil || errors.As(err, &none) && none.Errno == "" {
		t.Error("it is still there")
	}
	p.quiet()
}

// TestProblems tells of a full pool and of failed I/O in the words of the alerts.
func TestProblems(t *testing.T) {
	r := newRig(t, server.Config{})
	must(t, r.CreatePool(ctx, volume.PoolSpec{Name: "tiny", Size: 1 << 20, FailWhenFull: true}))
	must(t, r.CreateVolume(ctx, ctl.CreateVolume{Pool: "tiny", Name: "vol", Size: 4 << 20}))
	p := open(t, 1280, 900, false)
	p.visit(r.at(), shown)
	if text := get[string](p, `document.getElementById("problems").textContent`); text != "No problems" && !strings.HasPrefix(text, "1 problemcritical Only ") { // the machine's own file system may be full
		t.Errorf("at first: %q", text)
	}
	if st := r.write("vol", 0, 2<<20); !errors.Is(st, blk.NoSpace) {
		t.Errorf("a write to a full pool: %v", st)
	}
	p.until(`udm.state.problems.filter(p => p.alert !== "UdmHostFilling").length >= 3`)
	if alerts := get[[]string](p, `[...document.querySelectorAll("#problems li")].map(e => e.dataset.alert).filter(a => a !== "UdmHostFilling")`); !slices.Equal(alerts, []string{"UdmPoolOutOfSpace", "UdmPoolDataFilling", "UdmDeviceErrors"}) {
		t.Errorf("the page tells %v", alerts)
	}
	if text := get[string](p, `document.querySelector("#problems li").innerText`); !strings.Contains(text, "Pool tiny is out of data space.") || !strings.Contains(text, "udm pool grow tiny --size SIZE") {
		t.Errorf("it says %q", text)
	}
	p.quiet()
}
