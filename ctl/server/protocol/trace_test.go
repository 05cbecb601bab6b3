package protocol

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"udm/blk"
	"udm/ctl"
	"udm/env"
)

// A client that reads nothing of its trace delays neither I/O nor the end of the server.
func TestTraceToNobody(t *testing.T) {
	s, _ := newFuzzed(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	server := http.Server{Handler: Handler(s, slog.New(slog.DiscardHandler)), BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"name":"base"}`
	fmt.Fprintf(c, "POST /v1/trace HTTP/1.1\r\nHost: udm\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := c.Read(make([]byte, 12)); err != nil { // it has begun
		t.Fatal(err)
	}
	d, err := s.Open(ctl.Ref{Name: "base"}, true)
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 { // more than a socket and the trace hold
		if err := blk.WriteSectors(env.Real(), d, make([]byte, 512), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
	c.Close()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
