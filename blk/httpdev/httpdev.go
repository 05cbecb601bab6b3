// Package httpdev is a disk that is an object at a web server, read by ranges. It is
// read-only.
//
// # One object
//
// The first answer pins the object: its size, its ETag and its time of last change. Every
// request asks for the same object, and every answer must say that it is of it. Once an
// answer says otherwise, every read fails, until the disk is opened anew: parts of two
// objects are never mixed. A server that tells neither an ETag nor a time is refused, as is
// one that does not answer ranges.
//
// # Pieces
//
// What is read comes in pieces of 1 MiB, which are kept in the cache, by URL, pin and place.
// Several reads that want one piece wait for one request. What fails for a reason that may
// pass is asked for again, with growing pauses.
//
// # Locks
//
// Device source: mu is a leaf.
package httpdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"udm/blk"
	"udm/blk/chunkcache"
	"udm/blk/readdev"
	"udm/env"
)

// pieceSize is what is asked for at once.
const pieceSize = 1 << 20

// Options say how an object is read.
type Options struct {
	Cache *chunkcache.Cache // may be nil
	// Plain allows http: to other machines than this one, where anyone on the way can
	// change what is read.
	Plain bool
	// Client is for tests; nil: the usual one.
	Client *http.Client
	// Pause waits between attempts, for tests; nil: really.
	Pause func(ctx context.Context, d time.Duration) error
}

// attempts is how often a piece is asked for; the pause between two doubles up to the
// longest, so that all take a minute.
const (
	attempts     = 9
	firstPause   = 200 * time.Millisecond
	longestPause = 15 * time.Second
)

// pin is what tells one object from another.
type pin struct {
	size     int64
	etag     string
	modified string
}

// object is the source of a device.
type object struct {
	url    string
	shown  string // without a password
	client *http.Client
	o      Options
	pin    pin

	mu      sync.Mutex
	held    map[int64]*held // guarded by mu; by number
	order   []int64         // guarded by mu; of held, the oldest first
	changed bool            // guarded by mu
	err     error           // guarded by mu; of the last request; nil: it went well
	retries uint64          // guarded by mu
}

// held is a piece that was, or is being, loaded.
type held struct {
	ready chan struct{} // closed when it was
	p     []byte
	err   error
}

// maxHeld is how many pieces are in memory.
const maxHeld = 16

// Parse checks a URL.
func Parse(text string, plain bool) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	if u.Host == "" || u.Fragment != "" {
		return fmt.Errorf("%s is not the URL of an object", u.Redacted())
	}
	return allowed(u, plain)
}

// allowed refuses what others could change on its way.
func allowed(u *url.URL, plain bool) error {
	ip := net.ParseIP(u.Hostname())
	switch {
	case u.Scheme == "https":
	case u.Scheme != "http":
		return fmt.Errorf("%s: only https: is read", u.Redacted())
	case !plain && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()):
		return fmt.Errorf("%s: http: is read from this machine only, as anyone on the way could change it; use https:, or set UDM_PLAIN_HTTP=1", u.Redacted())
	}
	return nil
}

// Open opens the object at a URL.
func Open(e env.Env, text string, o Options) (*readdev.Device, error) {
	if err := Parse(text, o.Plain); err != nil {
		return nil, err
	}
	u, _ := url.Parse(text) // Parse has seen it
	s := &object{url: text, shown: u.Redacted(), client: o.Client, o: o, held: map[int64]*held{}}
	if s.client == nil {
		s.client = &http.Client{Transport: transport(), CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 9 {
				return errors.New("too many redirections")
			}
			if err := allowed(r.URL, o.Plain); err != nil {
				return final{err}
			}
			return nil
		}}
	}
	if s.o.Pause == nil {
		s.o.Pause = pause
	}
	if err := s.retry(context.Background(), func() error { return s.first() }); err != nil {
		return nil, err
	}
	return readdev.New(e, s, uint64(s.pin.size)/blk.SectorSize), nil
}

func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout, t.DisableCompression = 30*time.Second, true
	return t
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// final is an error that does not pass.
type final struct{ error }

// retry calls f until it succeeds, or fails for good.
func (s *object) retry(ctx context.Context, f func() error) (err error) {
	wait := firstPause
	for i := range attempts {
		if i > 0 {
			s.mu.Lock()
			s.retries++
			s.mu.Unlock()
			if s.o.Pause(ctx, wait) != nil {
				return err
			}
			wait = min(2*wait, longestPause)
		}
		err = f()
		var fin final
		if err == nil || errors.As(err, &fin) || ctx.Err() != nil {
			break
		}
	}
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	return err
}

// request asks for bytes [from, to] of the object, and returns the answer with what the
// object is that it is of.
func (s *object) request(ctx context.Context, from, to int64) (*http.Response, pin, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, pin{}, final{err}
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to))
	r.Header.Set("Accept-Encoding", "identity")
	switch {
	case s.pin.etag != "" && !strings.HasPrefix(s.pin.etag, "W/"):
		r.Header.Set("If-Match", s.pin.etag)
	case s.pin.modified != "":
		r.Header.Set("If-Unmodified-Since", s.pin.modified)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // it has the URL, with its password
		}
		return nil, pin{}, fmt.Errorf("%s: %w", s.shown, err)
	}
	p, err := s.understand(resp, from, to)
	if err != nil {
		resp.Body.Close()
		return nil, p, err
	}
	return resp, p, nil
}

var errChanged = errors.New("the object has changed since it was opened")

// understand tells of what an answer is a part.
func (s *object) understand(resp *http.Response, from, to int64) (p pin, err error) {
	switch c := resp.StatusCode; {
	case c == http.StatusPreconditionFailed && s.pin != (pin{}):
		return p, s.change()
	case c == http.StatusOK:
		return p, final{fmt.Errorf("%s: the server does not answer ranges", s.shown)}
	case c == http.StatusRequestedRangeNotSatisfiable && s.pin != (pin{}):
		return p, s.change() // it is shorter
	case c == http.StatusTooManyRequests || c == http.StatusRequestTimeout || c >= 500:
		return p, fmt.Errorf("%s: %s", s.shown, resp.Status)
	case c != http.StatusPartialContent:
		return p, final{fmt.Errorf("%s: %s", s.shown, resp.Status)}
	}
	var first, last int64
	if n, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &p.size); n != 3 || err != nil || first != from {
		return p, final{fmt.Errorf("%s: the server answers the wrong range %q", s.shown, resp.Header.Get("Content-Range"))}
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return p, final{fmt.Errorf("%s: the server sends it encoded as %s", s.shown, e)}
	}
	p.etag, p.modified = resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	if s.pin == (pin{}) {
		return p, nil
	}
	if p != s.pin {
		return p, s.change()
	}
	if last != min(to, p.size-1) {
		return p, final{fmt.Errorf("%s: the server answers only a part of a range", s.shown)}
	}
	return p, nil
}

// change notes that the object is another one now.
func (s *object) change() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = true
	return final{fmt.Errorf("%s: %w; open it anew", s.shown, errChanged)}
}

// first pins the object.
func (s *object) first() error {
	resp, p, err := s.request(context.Background(), 0, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case p.etag == "" && p.modified == "":
		return final{fmt.Errorf("%s: the server tells neither an ETag nor when it was changed, so a change would not be noticed", s.shown)}
	case p.size < blk.SectorSize:
		return final{fmt.Errorf("%s has only %d bytes", s.shown, p.size)}
	}
	s.pin = p
	return nil
}

// piece returns a piece of the object.
func (s *object) piece(ctx context.Context, n int64) ([]byte, error) {
	s.mu.Lock()
	if s.changed {
		s.mu.Unlock()
		return nil, errChanged
	}
	h := s.held[n]
	if h != nil {
		s.mu.Unlock()
		<-h.ready
		return h.p, h.err
	}
	h = &held{ready: make(chan struct{})}
	s.held[n] = h
	if s.order = append(s.order, n); len(s.order) > maxHeld {
		delete(s.held, s.order[0])
		s.order = s.order[1:]
	}
	s.mu.Unlock()
	h.p, h.err = s.load(ctx, n)
	if h.err != nil {
		s.mu.Lock()
		if s.held[n] == h {
			delete(s.held, n) // try again next time
		}
		s.mu.Unlock()
	}
	close(h.ready)
	return h.p, h.err
}

func (s *object) load(ctx context.Context, n int64) (p []byte, err error) {
	from := n * pieceSize
	size := min(pieceSize, s.pin.size-from)
	key := strings.Join([]string{s.url, s.pin.etag, s.pin.modified, strconv.FormatInt(s.pin.size, 10), strconv.FormatInt(n, 10)}, "\n")
	if s.o.Cache != nil {
		if p, ok := s.o.Cache.Get(key); ok && int64(len(p)) == size {
			return p, nil
		}
	}
	err = s.retry(ctx, func() error {
		resp, _, err := s.request(ctx, from, from+size-1)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		p = make([]byte, size)
		if _, err = io.ReadFull(resp.Body, p); err != nil {
			return fmt.Errorf("%s: %w", s.shown, err)
		}
		return nil
	})
	if err == nil && s.o.Cache != nil {
		s.o.Cache.Put(key, p)
	}
	return p, err
}

// Read implements [readdev.Source].
func (s *object) Read(ctx context.Context, p []byte, sector uint64) error {
	at := int64(sector * blk.SectorSize)
	for len(p) > 0 {
		c, err := s.piece(ctx, at/pieceSize)
		if err != nil {
			return err
		}
		n := copy(p, c[at%pieceSize:])
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// Extents says that all is data.
func (s *object) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.AllData(sector, sectors), nil
}

// Report tells how the last request went.
func (s *object) Report() blk.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := blk.Report{State: "readable", Reconnects: s.retries}
	if s.err != nil {
		r.State, r.Why = "unreadable", s.err.Error()
	}
	if s.changed {
		r.State = "changed"
	}
	return r
}

// Close implements [readdev.Source].
func (s *object) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

func (s *object) String() string { return s.shown }
