package server

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"udm/ctl"
)

// next takes the next event of a subscription.
func next(t *testing.T, pull func() (ctl.Event, error, bool)) ctl.Event {
	t.Helper()
	e, err, ok := pull()
	if err != nil || !ok {
		t.Fatalf("%v, %v", err, ok)
	}
	return e
}

// Each change of a device is told to who is subscribed, in this process and to a
// client alike, in its order.
func TestEvents(t *testing.T) {
	r := start(t, tempRoot(t))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var pulls []func() (ctl.Event, error, bool)
	for _, s := range []ctl.Service{r.Client, r.server} {
		events, err := s.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		pull, stop := iter.Pull2(events)
		defer stop()
		pulls = append(pulls, pull)
	}
	r.create("x", "0 8 zero")
	for _, err := range []error{
		second(r.Suspend(ctx, ctl.Suspend{Ref: ref("x")})),
		second(r.Load(ctx, ctl.Load{Ref: ref("x"), Table: "0 16 zero"})),
		second(r.Resume(ctx, ctl.Suspend{Ref: ref("x")})),
		second(r.Rename(ctx, ctl.Rename{Ref: ref("x"), NewName: "y"})),
		r.Remove(ctx, ctl.Remove{Ref: ref("y")}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	type told struct {
		kind ctl.EventKind
		name string
		nr   uint32
	}
	for _, want := range []told{
		{ctl.EventCreated, "x", 0}, {ctl.EventLoaded, "x", 0}, {ctl.EventResumed, "x", 0}, // create
		{ctl.EventSuspended, "x", 0}, {ctl.EventLoaded, "x", 0}, {ctl.EventResumed, "x", 0},
		{ctl.EventRenamed, "y", 1}, {ctl.EventRemoved, "y", 2},
	} {
		for _, pull := range pulls {
			e := next(t, pull)
			if got := (told{e.Kind, e.Name, e.Event}); got != want || e.Number == nil || e.Number.Minor != 0 {
				t.Errorf("%+v, want %+v", e, want)
			}
		}
	}
	cancel()
	for _, pull := range pulls {
		if e, err, ok := pull(); ok {
			t.Errorf("after the end of the subscription: %+v, %v", e, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A client hears of the end of the daemon.
func TestEventsEndWithTheDaemon(t *testing.T) {
	r := start(t, tempRoot(t))
	events, err := r.Events(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	pull, stop := iter.Pull2(events)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		_, err, _ := pull()
		ended <- err
	}()
	r.end(nil)
	if err := <-ended; err == nil {
		t.Error("the events end without an error")
	}
}

// A registered disk has its number after a restart, before any table names it.
func TestDisksKeepTheirNumbers(t *testing.T) {
	root, ctx := tempRoot(t), context.Background()
	path := filepath.Join(root, "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, root)
	at := ctl.Number{Major: 8, Minor: 16}
	if err := r.RegisterDisk(ctx, ctl.Disk{Number: at, Path: path}); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterDisk(ctx, ctl.Disk{Number: ctl.Number{Major: 254}, Path: path}); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	r.create("a", "0 8 linear 8:16 0")
	r.end(nil)
	r = start(t, root)
	d, err := r.Device(ctx, ctl.Query{Ref: ref("a"), With: []ctl.With{ctl.WithTable, ctl.WithDeps}})
	if err != nil || !d.Live || d.Table[0].Params != "8:16 0" || d.Deps[0].Source != path {
		t.Errorf("%+v, %v", d, err)
	}
	if err := r.Remove(ctx, ctl.Remove{Ref: ref("a")}); err != nil {
		t.Fatal(err)
	}
	if err := r.UnregisterDisk(ctx, at); err != nil {
		t.Fatal(err)
	}
	r.end(nil)
	r = start(t, root)
	if ds, err := r.Disks(ctx); err != nil || len(ds) != 0 {
		t.Errorf("%v, %v", ds, err)
	}
	if err := r.UnregisterDisk(ctx, at); !errors.Is(err, syscall.ENXIO) {
		t.Error(err)
	}
}
