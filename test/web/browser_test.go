//go:build chromium

package web

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"

	"udm/test/need"
)

// browser is a chromium. The protocol is JSON through a pair of pipes, each message ended by
// a zero byte. mu is a leaf.
type browser struct {
	command  *exec.Cmd
	dir      string // of its profile
	to, from *os.File
	ended    chan bool // closed after its last answer

	mu     sync.Mutex
	last   int                // guarded by mu; the id of the last command
	waits  map[int]chan reply // guarded by mu
	pages  map[string]*page   // guarded by mu; by session
	closed error              // guarded by mu; why answers ended
}

// reply is an answer or an event.
type reply struct {
	ID      int             `json:"id"`
	Session string          `json:"sessionId"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// startBrowser starts the browser of all tests.
func startBrowser() (*browser, error) {
	dir, err := os.MkdirTemp("", "chromium")
	if err != nil {
		return nil, err
	}
	in, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	args := []string{"--headless=new", "--remote-debugging-pipe", "--user-data-dir=" + dir, "--disable-gpu", "--hide-scrollbars",
		"--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-extensions",
		"--no-proxy-server", "--host-resolver-rules=MAP rebound.test 127.0.0.1", "--force-color-profile=srgb"}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // it does not start as root otherwise
	}
	c := exec.Command("chromium", append(args, "about:blank")...)
	c.ExtraFiles, c.Stderr = []*os.File{in, out}, io.Discard
	if err := errors.Join(c.Start(), in.Close(), out.Close()); err != nil {
		return nil, err
	}
	b := &browser{command: c, dir: dir, to: to, from: from, ended: make(chan bool), waits: make(map[int]chan reply), pages: make(map[string]*page)}
	go func() {
		defer close(b.ended)
		b.receive(bufio.NewReader(from))
	}()
	return b, nil
}

// end ends the browser.
func (b *browser) end() error {
	_, _ = b.send("", "Browser.close", nil) // it may have ended
	err := errors.Join(b.to.Close(), b.command.Wait())
	<-b.ended
	return errors.Join(err, b.from.Close(), os.RemoveAll(b.dir))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// receive gives answers to those who wait, and events to their pages, until the browser ends.
func (b *browser) receive(r *bufio.Reader) {
	for {
		text, err := r.ReadBytes(0)
		var m reply
		if err == nil {
			err = json.Unmarshal(text[:len(text)-1], &m)
		}
		b.mu.Lock()
		if err != nil {
			b.closed = err
			for _, w := range b.waits {
				close(w)
			}
			b.mu.Unlock()
			return
		}
		wait, p := b.waits[m.ID], b.pages[m.Session]
		delete(b.waits, m.ID)
		b.mu.Unlock()
		if wait != nil {
			wait <- m
		} else if p != nil {
			p.event(m)
		}
	}
}

// send runs a command and returns its answer.
func (b *browser) send(session, method string, params any) (json.RawMessage, error) {
	if params == nil {
		params = struct{}{}
	}
	wait := make(chan reply, 1)
	b.mu.Lock()
	if b.closed != nil {
		b.mu.Unlock()
		return nil, b.closed
	}
	b.last++
	id := b.last
	b.waits[id] = wait
	text, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params, "sessionId": session})
	if session == "" {
		text, err = json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	}
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	m, ok := <-wait
	switch {
	case !ok:
		return nil, errors.New("the browser has ended")
	case m.Error != nil:
		return nil, fmt.Errorf("%s: %s", method, m.Error.Message)
	}
	return m.Result, nil
}

// page is a tab.
type page struct {
	testing.TB
	*browser
	session string

	mu     sync.Mutex
	said   []string // guarded by mu; errors, and violations of the policy
	traced []task   // guarded by mu
	done   chan bool
}

// task is something that the page's main thread did: the processor time of it.
type task struct {
	Name     string  `json:"name"`
	Thread   float64 `json:"tid"`
	Phase    string  `json:"ph"`
	CPU      float64 `json:"tdur"` // microseconds
	Duration float64 `json:"dur"`
}

// open opens a tab of a size in a profile of its own, until the end of the test.
func open(t testing.TB, width, height int, phone bool) *page {
	t.Helper()
	need.Tools(t, "chromium")
	b, err := shared()
	must(t, err)
	var target struct{ BrowserContextID, TargetID, SessionID string }
	p := &page{TB: t, browser: b, done: make(chan bool, 1)}
	p.decode(p.do("Target.createBrowserContext", nil), &target)
	profile := map[string]any{"browserContextId": target.BrowserContextID}
	t.Cleanup(func() {
		p.session = ""
		p.do("Target.disposeBrowserContext", profile)
	})
	p.decode(p.do("Target.createTarget", map[string]any{"url": "about:blank", "browserContextId": target.BrowserContextID}), &target)
	p.decode(p.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}), &target)
	p.session = target.SessionID
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.do(domain+".enable", nil)
	}
	p.size(width, height, phone)
	return p
}

func (p *page) size(width, height int, phone bool) {
	p.Helper()
	p.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})
}

// media has the page believe in preferences of its user.
func (p *page) media(features map[string]string) {
	p.Helper()
	list := []map[string]string{}
	for name, value := range features {
		list = append(list, map[string]string{"name": name, "value": value})
	}
	p.do("Emulation.setEmulatedMedia", map[string]any{"features": list})
}

func (p *page) do(method string, params any) json.RawMessage {
	p.Helper()
	out, err := p.send(p.session, method, params)
	must(p, err)
	return out
}

func (p *page) decode(text json.RawMessage, v any) {
	p.Helper()
	must(p, json.Unmarshal(text, v))
}

// event notes what the browser tells of the page.
func (p *page) event(m reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Method {
	case "Runtime.exceptionThrown", "Log.entryAdded":
		p.said = append(p.said, string(m.Params))
	case "Tracing.dataCollected":
		var part struct{ Value []task }
		if json.Unmarshal(m.Params, &part) == nil {
			p.traced = append(p.traced, part.Value...)
		}
	case "Tracing.tracingComplete":
		p.done <- true
	}
}

// complaints are errors that the page has had so far.
func (p *page) complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.said)
}

// visit goes to an address and waits until a condition of the page holds.
func (p *page) visit(address, until string) {
	p.Helper()
	p.do("Page.navigate", map[string]any{"url": address})
	p.until(until)
}

// until waits until an expression is true. The page itself looks, at each of its frames.
func (p *page) until(condition string) {
	p.Helper()
	p.eval(`new Promise((done, failed) => {
		let left = 1200;
		const look = () => {
			let ok = false;
			try { ok = ` + condition + `; } catch { /* not there yet */ }
			if (ok) done(true);
			else if (--left) setTimeout(look, 50);
			else failed(new Error("waited in vain for " + ` + quote(condition) + `));
		};
		look();
	})`)
}

func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(text)
}

// eval evaluates an expression, and waits for a promise.
func (p *page) eval(expression string) json.RawMessage {
	p.Helper()
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	for {
		text, err := p.send(p.session, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true})
		if err != nil && (err.Error() == "Runtime.evaluate: Inspected target navigated or closed" || err.Error() == "Runtime.evaluate: Promise was collected") {
			continue // what waited there, waits in the next document
		}
		must(p, err)
		p.decode(text, &out)
		break
	}
	if e := out.ExceptionDetails; e != nil {
		p.Fatalf("%s %s\n%s", e.Text, e.Exception.Description, expression)
	}
	return out.Result.Value
}

// get evaluates an expression into a value.
func get[T any](p *page, expression string) (v T) {
	p.Helper()
	p.decode(p.eval(expression), &v)
	return v
}

// keys has the user press keys, by their names.
func (p *page) keys(names ...string) {
	p.Helper()
	for _, name := range names {
		key := map[string]any{"type": "keyDown", "key": name}
		switch {
		case len(name) == 1:
			key["text"] = name
		case name == "Enter":
			key["text"], key["windowsVirtualKeyCode"] = "\r", 13
		case name == "Tab":
			key["windowsVirtualKeyCode"] = 9
		case name == "Escape":
			key["windowsVirtualKeyCode"] = 27
		}
		p.do("Input.dispatchKeyEvent", key)
		p.do("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": name})
	}
}

// mouse has the user move, press or release the mouse, or turn its wheel.
func (p *page) mouse(kind string, x, y, wheel float64) {
	p.Helper()
	e := map[string]any{"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
	if kind == "mouseWheel" {
		e["deltaX"], e["deltaY"] = 0, wheel
	}
	p.do("Input.dispatchMouseEvent", e)
}

// shot writes a picture of the page.
func (p *page) shot(path string) {
	p.Helper()
	var out struct{ Data string }
	p.decode(p.do("Page.captureScreenshot", map[string]any{"format": "png"}), &out)
	png, err := base64.StdEncoding.DecodeString(out.Data)
	must(p, err)
	must(p, os.WriteFile(path, png, 0o644))
}

// tasks returns what the page's threads did while f ran.
func (p *page) tasks(f func()) []task {
	p.Helper()
	p.do("Tracing.start", map[string]any{"transferMode": "ReportEvents", "traceConfig": map[string]any{"includedCategories": []string{"toplevel", "disabled-by-default-devtools.timeline"}}})
	f()
	p.do("Tracing.end", nil)
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.traced)
}
