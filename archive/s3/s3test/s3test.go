// Package s3test has a server that speaks S3 as far as a store of archives needs it, a proxy
// that does harm to requests, and tests of any server.
package s3test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bucket is a server with one bucket. The zero value is empty.
type Bucket struct {
	mu      sync.Mutex
	objects map[string][]byte // guarded by mu; what is in one does not change
}

// Objects is what the bucket has.
func (b *Bucket) Objects() map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.objects)
}

// Reset replaces what the bucket has.
func (b *Bucket) Reset(objects map[string][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects = maps.Clone(objects)
}

// ServeHTTP implements [http.Handler].
func (b *Bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	o, there := b.objects[key]
	switch {
	case r.URL.Query().Has("location"):
		io.WriteString(w, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></LocationConstraint>`)
	case r.URL.Query().Has("list-type"):
		b.list(w, r.URL.Query().Get("prefix"))
	case r.Method == http.MethodPut && there && r.Header.Get("If-None-Match") == "*":
		fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
	case r.Method == http.MethodPut:
		p, err := io.ReadAll(r.Body)
		if err != nil || int64(len(p)) != r.ContentLength {
			fail(w, http.StatusBadRequest, "IncompleteBody")
			return
		}
		if b.objects == nil {
			b.objects = map[string][]byte{}
		}
		b.objects[key] = p
		w.Header().Set("ETag", `"x"`)
	case r.Method == http.MethodGet && !there:
		fail(w, http.StatusNotFound, "NoSuchKey")
	case r.Method == http.MethodGet:
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(o))
	case r.Method == http.MethodDelete:
		delete(b.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, http.StatusNotImplemented, "NotImplemented")
	}
}

func fail(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
}

func (b *Bucket) list(w http.ResponseWriter, prefix string) {
	type content struct {
		Key          string
		Size         int
		LastModified string
	}
	var out struct {
		XMLName     xml.Name `xml:"ListBucketResult"`
		IsTruncated bool
		Contents    []content
	}
	for k, o := range b.objects {
		if strings.HasPrefix(k, prefix) {
			out.Contents = append(out.Contents, content{k, len(o), "2026-01-01T00:00:00Z"})
		}
	}
	slices.SortFunc(out.Contents, func(a, b content) int { return strings.Compare(a.Key, b.Key) })
	_ = xml.NewEncoder(w).Encode(out)
}

// Harm is what a proxy does to a request.
type Harm int

const (
	None    Harm = iota
	Refuse       // it is answered by 503
	Swallow      // it is carried out, and the connection ends without an answer
	Twice        // it is carried out twice, and answered as the second time
	Slow         // it is carried out after some time
	Late         // the connection ends without an answer; it is carried out by Deliver
	NumHarms
)

// Proxy is before a server, and does harm to requests.
type Proxy struct {
	To string // the server
	// Harm says what to do to a request; they are counted from 1. nil: nothing.
	Harm func(n int) Harm
	// Done is called when a request that is swallowed was carried out; may be nil.
	Done func()

	mu   sync.Mutex
	n    int      // guarded by mu; requests
	late []func() // guarded by mu
}

// Requests is how many requests there were.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// Begin counts from 1 again, with another harm.
func (p *Proxy) Begin(harm func(n int) Harm, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n, p.Harm, p.Done = 0, harm, done
}

// Deliver carries out what is late.
func (p *Proxy) Deliver() {
	p.mu.Lock()
	late := p.late
	p.late = nil
	p.mu.Unlock()
	for _, f := range late {
		f()
	}
}

// next counts a request.
func (p *Proxy) next() (harm Harm, done func()) {
	p.mu.Lock()
	p.n++
	n, of, done := p.n, p.Harm, p.Done
	p.mu.Unlock()
	if of != nil {
		harm = of(n)
	}
	return harm, done
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	harm, done := p.next()
	switch harm {
	case Refuse:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case Slow:
		time.Sleep(20 * time.Millisecond) // the harm itself: the server is slow
	case Twice:
		p.forward(httptest.NewRecorder(), r, body)
	case Swallow:
		p.forward(httptest.NewRecorder(), r, body)
		if done != nil {
			done()
		}
		panic(http.ErrAbortHandler)
	case Late:
		p.mu.Lock()
		p.late = append(p.late, func() { p.forward(httptest.NewRecorder(), r, body) })
		p.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	p.forward(w, r, body)
}

func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, body []byte) {
	q, err := http.NewRequest(r.Method, p.To+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	q.Header, q.Host = r.Header.Clone(), r.Host // it is signed
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}
