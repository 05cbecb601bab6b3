package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"udm/ctl"
	"udm/ctl/server/frontend"
	"udm/ctl/server/service"
	"udm/targets/all"
)

// stuck is a front end whose clients do not go.
type stuck struct {
	frontend.Server
	until func(ctx context.Context) <-chan struct{}
}

func (stuck) Name() string            { return "stuck" }
func (stuck) Start(func(error)) error { return nil }
func (s stuck) Drain(ctx context.Context) error {
	<-s.until(ctx)
	return ctx.Err()
}

// ending is a service with a device and a front end.
func ending(t *testing.T, f frontend.Server) *service.Service {
	t.Helper()
	s, err := service.New(service.Config{Root: t.TempDir(), Types: all.Types()})
	if err == nil {
		err = s.Restore(context.Background())
	}
	if err == nil {
		_, err = s.Create(context.Background(), ctl.Create{Name: "disk", Table: "0 8 zero"})
	}
	if err == nil {
		err = s.FrontEnd.Start(func(error) {}, f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What does not end is given up after a while, and told.
func TestEndGivesUp(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	s := ending(t, stuck{until: func(context.Context) <-chan struct{} { return release }})
	var log bytes.Buffer
	err := end(s, Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Drain: 50 * time.Millisecond})
	if !errors.Is(err, errGivenUp) {
		t.Errorf("the daemon ends with %v", err)
	}
	for _, want := range []string{"front_end=stuck", "device=disk"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s: %s", want, &log)
		}
	}
}

// A daemon that is told to hurry waits for nobody: here it would be an hour.
func TestEndInAHurry(t *testing.T) {
	s := ending(t, stuck{until: func(ctx context.Context) <-chan struct{} { return ctx.Done() }})
	hurry := make(chan struct{})
	close(hurry)
	if err := end(s, Config{Log: discard, Drain: time.Hour, Hurry: hurry}); err != nil {
		t.Error(err)
	}
}
