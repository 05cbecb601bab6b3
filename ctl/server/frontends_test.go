package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/ctl"
	"udm/ctl/server/frontend"
	"udm/env"
)

// The front ends tell what they serve, and to whom.
func TestFrontEnds(t *testing.T) {
	r, ctx := start(t, tempRoot(t)), context.Background()
	r.create("disk", "0 2048 linear mem:1M 0")
	r.create("empty", "")
	c, err := nbdclient.Dial(ctx, "unix", filepath.Join(r.root, ctl.NBDSocket), nbdclient.Options{Export: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	if err := blk.ReadSectors(env.Real(), c, make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
	list, err := r.FrontEnds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		names = append(names, f.Name)
		switch f.Name {
		case "nbd":
			if f.Exports != 1 || len(f.Clients) != 1 || f.Clients[0].Device != "disk" || f.Clients[0].ReadOnly || !slices.Equal(f.Addresses, []string{filepath.Join(r.root, ctl.NBDSocket)}) {
				t.Errorf("%+v", f)
			}
		case "control":
			if len(f.Clients) == 0 {
				t.Errorf("this is a client: %+v", f)
			}
		}
	}
	if !slices.Equal(names, []string{"control", "nbd", "files", "attachments", "vhost-user"}) {
		t.Error(names)
	}
	r.create("top", "0 8 linear /dev/mapper/disk 0")
	d, err := r.Device(ctx, ctl.Query{Ref: ref("disk")})
	if err != nil || d.Opens != 2 || d.Holders["nbd"] != 1 || d.Holders["tables"] != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// broken is a front end that cannot start, or that fails later.
type broken struct {
	frontend.Server
	at   string
	fail func(error)
	log  *[]string
}

var errBroken = errors.New("broken")

func (b *broken) Name() string { return b.at }

func (b *broken) Start(fail func(error)) error {
	*b.log = append(*b.log, "start "+b.at)
	if b.at == "never" {
		return errBroken
	}
	b.fail = fail
	return nil
}

func (b *broken) Close() error { *b.log = append(*b.log, "close "+b.at); return nil }

// When a front end cannot start, those before it are closed.
func TestFrontEndCannotStart(t *testing.T) {
	var list frontend.List
	var log []string
	err := list.Start(func(error) {}, &broken{at: "a", log: &log}, &broken{at: "never", log: &log}, &broken{at: "b", log: &log})
	if !errors.Is(err, errBroken) || !slices.Equal(log, []string{"start a", "start never", "close a"}) || len(list.Status()) != 0 {
		t.Errorf("%v, %v, %v", err, log, list.Status())
	}
}

// A daemon whose port is taken leaves nothing behind, and says which front end it was.
func TestListenOnTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	root := tempRoot(t)
	err = Run(context.Background(), Config{Root: root, Log: discard, Listen: l.Addr().String()})
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Fatal(err)
	}
	start(t, root).create("x", "0 8 zero")
}

// Metrics are served on an address or a socket of their own, and on the control socket.
func TestMetricsFrontEnd(t *testing.T) {
	root := tempRoot(t)
	r := startWith(t, Config{Root: root, Metrics: "unix:" + filepath.Join(root, "metrics.sock")})
	r.create("x", "0 8 zero")
	over := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(root, "metrics.sock"))
	}}}
	resp, err := over.Get("http://udm/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var control strings.Builder
	if err := r.Metrics(context.Background(), &control); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	for _, text := range []string{string(text), control.String()} {
		if err != nil || !strings.Contains(text, `udm_device_size_bytes{device="x"} 4096`) || !strings.Contains(text, `udm_front_end_clients{front_end="metrics"}`) {
			t.Errorf("%v\n%s", err, text)
		}
	}
	ends, err := r.FrontEnds(context.Background())
	if i := slices.IndexFunc(ends, func(f ctl.FrontEnd) bool { return f.Name == "metrics" }); err != nil || i < 0 {
		t.Errorf("%v, %v", ends, err)
	}
}

// A file is not taken for the socket of a daemon that was killed.
func TestMetricsSocketIsAFile(t *testing.T) {
	root := tempRoot(t)
	path := filepath.Join(root, "precious")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Run(context.Background(), Config{Root: root, Log: discard, Metrics: "unix:" + path})
	if _, serr := os.Stat(path); serr != nil || err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("%v, %v", err, serr)
	}
}
