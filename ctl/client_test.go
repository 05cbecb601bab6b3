package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"udm/dm"
)

// serve answers every command with h, on the socket of a root.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	root, err := os.MkdirTemp("", "udm") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(root, Socket))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := NewClient(root)
	t.Cleanup(func() {
		c.Close()
		if err := errors.Join(s.Close(), os.RemoveAll(root)); err != nil {
			t.Error(err)
		}
		<-done
	})
	return c
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"errno":"EBUSY","reason":"in use"}`)
		}, "in use"},
		"no JSON": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", 500) }, "the daemon answered 500"},
		"empty":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, "the daemon answered 404"},
		"cut off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "was lost"},
		"half":    {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"name":`) }, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := serve(t, c.answer).List(context.Background(), Query{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if errors.Is(err, syscall.EBUSY) != (name == "refused") {
				t.Errorf("errno %v", dm.ErrnoOf(err))
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	c := NewClient(t.TempDir())
	defer c.Close()
	_, err := c.Version(context.Background())
	var none *NotRunning
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "start one: udm daemon --root") {
		t.Error(err)
	}
}

func TestGivingUp(t *testing.T) {
	entered := make(chan struct{})
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-entered; cancel() }()
	if _, err := c.Wait(ctx, Wait{}); !errors.Is(err, syscall.EINTR) {
		t.Error(err)
	}
}

// Every errno survives the way over the wire by its name.
func TestErrnos(t *testing.T) {
	for n, name := range errnoNames {
		e := NewError(dm.Errorf(n, "why"))
		if e.Errno != name || !errors.Is(e, n) || !strings.HasPrefix(e.Error(), "why: ") {
			t.Errorf("%v: %+v", n, e)
		}
	}
	if e := NewError(errors.New("odd")); !errors.Is(e, syscall.EINVAL) {
		t.Errorf("%+v", e)
	}
	if s := Strerror(syscall.ENXIO); s != "No such device or address" {
		t.Error(s)
	}
}
