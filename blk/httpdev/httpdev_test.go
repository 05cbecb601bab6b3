package httpdev_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/chunkcache"
	"udm/blk/httpdev"
	"udm/env"
)

// server serves an object, and does harm as it is told.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	content  []byte
	etag     string
	modified time.Time
	harm     func(n int, w http.ResponseWriter, r *http.Request) bool // has answered
	requests atomic.Int64
}

func newServer(t *testing.T, content []byte) *server {
	s := &server{content: content, etag: `"one"`}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := s.requests.Add(1)
		s.mu.Lock()
		content, etag, modified, harm := s.content, s.etag, s.modified, s.harm
		s.mu.Unlock()
		if harm != nil && harm(int(n), w, r) {
			return
		}
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, r, "", modified, bytes.NewReader(content))
	}))
	t.Cleanup(s.Close)
	return s
}

func now(context.Context, time.Duration) error { return nil }

func (s *server) open(t *testing.T, cache *chunkcache.Cache) (blk.Device, error) {
	t.Helper()
	d, err := httpdev.Open(env.Real(), s.URL+"/disk", httpdev.Options{Cache: cache, Pause: now})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { d.Close() })
	return d, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const sectors = 6*2048 + 100

func same(t *testing.T, d blk.Device, sector, n, seed uint64) {
	t.Helper()
	p := make([]byte, n*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), d, p, sector); err != nil {
		t.Fatal(err)
	}
	if err := blktest.Check(p, sector, seed); err != nil {
		t.Fatal(err)
	}
}

// TestReads reads an object from several devices with one cache, each piece once.
func TestReads(t *testing.T) {
	s := newServer(t, blktest.Pattern(0, sectors, 3))
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 3 {
		d := must(s.open(t, must(chunkcache.Open(dir, 64<<20))))
		if l := d.Limits(); l.Size != sectors || !l.ReadOnly {
			t.Errorf("limits %+v", l)
		}
		wg.Go(func() {
			for i := range uint64(200) {
				same(t, d, i*61%(sectors-50), 50, 3)
			}
			same(t, d, 0, sectors, 3)
		})
		wg.Wait()
	}
	if n := s.requests.Load(); n != 3+7 {
		t.Errorf("%d requests", n)
	}
}

// TestFaults: answers that are cut, fail, or are late are asked for again.
func TestFaults(t *testing.T) {
	s := newServer(t, blktest.Pattern(0, sectors, 4))
	s.harm = func(n int, w http.ResponseWriter, r *http.Request) bool {
		switch n % 4 {
		case 0:
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		case 1:
			panic(http.ErrAbortHandler)
		case 2: // half of the answer
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("ETag", `"one"`)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, min(to, sectors*512-1), sectors*512))
			w.Header().Set("Content-Length", fmt.Sprint(min(to, sectors*512-1)+1-from))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(s.content[from : (from+to)/2])
			return true
		}
		return false
	}
	d := must(s.open(t, nil))
	same(t, d, 0, sectors, 4)
	if r, ok := blk.ReportOf(d); !ok || r.State != "readable" || r.Reconnects == 0 {
		t.Errorf("report %+v", r)
	}
	s.mu.Lock()
	s.harm = func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true }
	s.mu.Unlock()
	d2, err := s.open(t, nil)
	if err == nil {
		t.Errorf("%v opens", d2)
	}
}

// TestChange: parts of two objects are never mixed, whatever pins them.
func TestChange(t *testing.T) {
	for name, c := range map[string]struct {
		etag   string
		at     time.Time
		change func(*server)
	}{
		"etag":       {`"one"`, time.Time{}, func(s *server) { s.etag = `"two"` }},
		"weak etag":  {`W/"one"`, time.Time{}, func(s *server) { s.etag = `W/"two"` }},
		"time":       {"", time.Unix(1e9, 0), func(s *server) { s.modified = time.Unix(1e9+1, 0) }},
		"older time": {"", time.Unix(1e9, 0), func(s *server) { s.modified = time.Unix(1e9-9, 0) }},
		"length":     {`"one"`, time.Time{}, func(s *server) { s.content = s.content[:5<<20] }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, blktest.Pattern(0, sectors, 5))
			s.etag, s.modified = c.etag, c.at
			cache := must(chunkcache.Open(t.TempDir(), 0))
			d := must(s.open(t, cache))
			same(t, d, 0, 10, 5)
			s.mu.Lock()
			s.content = blktest.Pattern(0, sectors, 6)
			c.change(s)
			s.mu.Unlock()
			p := make([]byte, 4096)
			if err := blk.ReadSectors(env.Real(), d, p, 4096); err != blk.IOErr {
				t.Errorf("a changed object: %v", err)
			}
			if err := blk.ReadSectors(env.Real(), d, p, 0); err != blk.IOErr {
				t.Errorf("what was read before a change: %v", err)
			}
			if r, _ := blk.ReportOf(d); r.State != "changed" {
				t.Errorf("report %+v", r)
			}
			same(t, must(s.open(t, cache)), 0, 2048, 6) // not from the cache of the old one
		})
	}
}

// TestRefused: servers and names that cannot be relied on.
func TestRefused(t *testing.T) {
	s := newServer(t, blktest.Pattern(0, sectors, 7))
	s.etag = ""
	if _, err := s.open(t, nil); err == nil || !strings.Contains(err.Error(), "neither an ETag") {
		t.Error(err)
	}
	s.etag = `"one"`
	s.harm = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		_, err := w.Write(s.content)
		return err == nil || true
	}
	if _, err := s.open(t, nil); err == nil || !strings.Contains(err.Error(), "does not answer ranges") {
		t.Error(err)
	}
	s.harm = func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true }
	if _, err := s.open(t, nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
	s.harm = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "http://192.0.2.1/disk", http.StatusFound)
		return true
	}
	if _, err := s.open(t, nil); err == nil || !strings.Contains(err.Error(), "this machine only") {
		t.Error(err)
	}
	for _, text := range []string{"http://192.0.2.1/x", "ftp://localhost/x", "https://", "https://h/x#y", "http:x"} {
		if httpdev.Parse(text, false) == nil {
			t.Errorf("%s is taken", text)
		}
	}
	if err := httpdev.Parse("http://192.0.2.1/x", true); err != nil {
		t.Error(err)
	}
	_, err := httpdev.Open(env.Real(), strings.Replace(s.URL, "http://", "http://user:secret@", 1)+"/", httpdev.Options{Pause: func(context.Context, time.Duration) error { return errors.New("no") }, Client: &http.Client{Transport: failing{}}})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

type failing struct{}

func (failing) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, &url.Error{Op: "Get", URL: "x", Err: errors.New("unplugged")}
}
