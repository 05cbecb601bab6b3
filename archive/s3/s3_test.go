package s3_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"udm/archive"
	"udm/archive/s3"
)

var real = flag.String("s3", "", "http://HOST:PORT/BUCKET of a server to test with, whose keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, instead of one in this process")

// bucket is a server with one bucket, as far as a store needs it.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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

func (b *bucket) list(w http.ResponseWriter, prefix string) {
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

// proxy is before a server, and does harm to one request.
type proxy struct {
	to    string
	harm  atomic.Int32 // what
	at    atomic.Int64 // to which
	calls atomic.Int64
}

// What a proxy does to a request.
const (
	nothing = iota
	refuse  // it is answered by 503
	swallow // it is carried out, and the connection ends without an answer
	twice   // it is carried out twice, and answered as the second time
	slowly  // it is carried out late
	numHarms
)

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	harm := nothing
	if p.calls.Add(1) == p.at.Load() {
		harm = int(p.harm.Load())
	}
	switch harm {
	case refuse:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case slowly:
		time.Sleep(20 * time.Millisecond) // the harm itself: the server is slow
	case twice:
		p.forward(httptest.NewRecorder(), r, body)
	case swallow:
		p.forward(httptest.NewRecorder(), r, body)
		panic(http.ErrAbortHandler)
	}
	p.forward(w, r, body)
}

func (p *proxy) forward(w http.ResponseWriter, r *http.Request, body []byte) {
	q, err := http.NewRequest(r.Method, p.to+r.URL.RequestURI(), bytes.NewReader(body))
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

// start starts a proxy before a server, and returns a store behind it.
func start(t *testing.T) (*proxy, func(prefix string) archive.Store) {
	t.Helper()
	p := &proxy{}
	name := "bucket"
	if *real == "" {
		t.Setenv("AWS_ACCESS_KEY_ID", "key")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
		s := httptest.NewServer(&bucket{objects: map[string][]byte{}})
		t.Cleanup(s.Close)
		p.to = s.URL
	} else {
		u, err := url.Parse(*real)
		if err != nil {
			t.Fatal(err)
		}
		p.to, name = u.Scheme+"://"+u.Host, strings.Trim(u.Path, "/")
	}
	front := httptest.NewServer(p)
	t.Cleanup(front.Close)
	return p, func(prefix string) archive.Store {
		s, err := s3.Open(t.Context(), strings.Replace(front.URL, "http://", "s3+http://", 1)+"/"+name+"/"+prefix)
		if err != nil {
			t.Fatal(err)
		}
		return archive.Retry(s, func(context.Context, time.Duration) error { return nil })
	}
}

// TestStore: what a store must do.
func TestStore(t *testing.T) {
	_, open := start(t)
	s, ctx := open(fmt.Sprint("store", rand.Uint64())), t.Context()
	if _, err := s.Get(ctx, "a/b", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an object that there is not: %v", err)
	}
	if err := s.PutNew(ctx, "a/b", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	if err := s.PutNew(ctx, "a/b", []byte("other")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put new again: %v", err)
	}
	if err := errors.Join(s.Put(ctx, "a/c", []byte("one")), s.Put(ctx, "a/c", []byte("two")), s.Put(ctx, "b", nil)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key       string
		offset, n int64
		want      string
	}{{"a/b", 0, -1, "0123456789"}, {"a/b", 3, 4, "3456"}, {"a/b", 7, -1, "789"}, {"a/c", 0, -1, "two"}, {"a/b", 9, 1, "9"}} {
		if p, err := s.Get(ctx, c.key, c.offset, c.n); err != nil || string(p) != c.want {
			t.Errorf("%+v: %q, %v", c, p, err)
		}
	}
	if _, err := s.Get(ctx, "a/b", 8, 5); err == nil {
		t.Error("more was read than there is")
	}
	var keys []string
	list := func(key string, size int64) error { keys = append(keys, fmt.Sprint(key, size)); return nil }
	if err := s.List(ctx, "a/", list); err != nil || !slices.Equal(keys, []string{"a/b10", "a/c3"}) {
		t.Errorf("list %v, %v", keys, err)
	}
	if err := errors.Join(s.Delete(ctx, "a/b"), s.Delete(ctx, "a/b")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"s3://host", "http://host/bucket", "s3://user:pass@host/bucket", "s3:///b"} {
		if _, err := s3.Open(ctx, name); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// session archives two generations, removes one, prunes, and restores.
func session(ctx context.Context, s archive.Store, first, second []byte) error {
	if err := archive.Init(ctx, s, nil); err != nil {
		return err
	}
	a, err := archive.Open(ctx, s, nil)
	if err != nil {
		return err
	}
	info, err := backup(ctx, a, "first", "", first, 0)
	if err == nil {
		_, err = backup(ctx, a, "second", info.ID, second, len(second)/2)
	}
	if err == nil {
		err = a.Remove(ctx, "first")
	}
	if err == nil {
		_, err = a.Prune(ctx)
	}
	if err != nil {
		return err
	}
	x, err := a.Snapshot(ctx, "second", nil)
	if err != nil {
		return err
	}
	got := make(buffer, len(second))
	if err := x.Restore(ctx, got, nil); err != nil {
		return err
	}
	if !bytes.Equal(got, second) {
		return errors.New("something else was restored")
	}
	return nil
}

type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }

func backup(ctx context.Context, a *archive.Archive, name, base string, disk []byte, from int) (archive.Info, error) {
	b, err := a.Begin(ctx, archive.BackupOptions{Name: name, Size: uint64(len(disk)), Base: base})
	if err != nil {
		return archive.Info{}, err
	}
	if err := b.Data(uint64(from), disk[from:]); err != nil {
		return archive.Info{}, errors.Join(err, b.Abort())
	}
	return b.Commit("")
}

// TestEachRequest does harm to each request of a session once.
func TestEachRequest(t *testing.T) {
	p, open := start(t)
	rng := rand.New(rand.NewPCG(1, 1))
	first := make([]byte, 1<<16)
	for i := range first {
		first[i] = byte(rng.Uint32())
	}
	second := bytes.Clone(first)
	copy(second[1<<15:], first[:1000])
	run, step := rand.Uint64(), int64(1)
	if testing.Short() {
		step = 5
	}
	for harm := range int32(numHarms) {
		for at, more := 1+int64(harm)%step, true; more; at += step {
			p.harm.Store(harm)
			p.at.Store(at)
			p.calls.Store(0)
			if err := session(t.Context(), open(fmt.Sprintf("s%d-%d-%d", run, harm, at)), first, second); err != nil {
				t.Fatalf("harm %d to request %d: %v", harm, at, err)
			}
			if more = harm != nothing && p.calls.Load() >= at; !more {
				t.Logf("harm %d: %d requests", harm, p.calls.Load())
			}
		}
	}
}
