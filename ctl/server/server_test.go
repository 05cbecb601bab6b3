package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/targets/all"
)

// rig is a daemon in the test's process.
type rig struct {
	*ctl.Client
	t      *testing.T
	root   string
	server *service.Service
	stop   func()
	ended  chan error
}

var discard = slog.New(slog.DiscardHandler)

func tempRoot(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "udm") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	return root
}

func start(t *testing.T, root string) *rig { return startWith(t, Config{Root: root}) }

func startWith(t *testing.T, cfg Config) *rig {
	t.Helper()
	blktest.Leaks(t)
	ctx, stop := context.WithCancel(context.Background())
	r := &rig{t: t, root: cfg.Root, Client: ctl.NewClient(cfg.Root), stop: stop, ended: make(chan error, 1)}
	ready := make(chan *service.Service, 1)
	cfg.Program, cfg.Types, cfg.Log = "test", all.Types(), discard
	cfg.Drain, cfg.slack = 50*time.Millisecond, time.Hour
	cfg.Ready = func(s *service.Service) { ready <- s }
	go func() { r.ended <- Run(ctx, cfg) }()
	select {
	case r.server = <-ready:
	case err := <-r.ended:
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() { r.end(nil) })
	return r
}

// end stops the daemon, once, and expects an error.
func (r *rig) end(want error) {
	r.t.Helper()
	if r.stop == nil {
		return
	}
	r.Close()
	r.stop()
	r.stop = nil
	if err := <-r.ended; !errors.Is(err, want) {
		r.t.Errorf("the daemon ended with %v, want %v", err, want)
	}
}

func (r *rig) create(name, table string) ctl.Device {
	r.t.Helper()
	d, err := r.Create(context.Background(), ctl.Create{Name: name, Table: table})
	if err != nil {
		r.t.Fatalf("create %s: %v", name, err)
	}
	return d
}

// files are the names of the saved files.
func (r *rig) files() string {
	r.t.Helper()
	es, err := os.ReadDir(filepath.Join(r.root, "devices"))
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func ref(name string) ctl.Ref { return ctl.Ref{Name: name} }

func TestCreateIsAllOrNothing(t *testing.T) {
	r := start(t, tempRoot(t))
	for table, step := range map[string]string{
		"0 8 nosuch":                         "reload",
		"0 8 linear /nosuch 0":               "reload",
		"0 8 linear mem:1M 0\n8 8 linear x0": "reload",
	} {
		_, err := r.Create(context.Background(), ctl.Create{Name: "x", Table: table})
		var e *ctl.Error
		if !errors.As(err, &e) || e.Step != step || e.Number == nil || e.Number.Minor != 0 {
			t.Errorf("%s: %#v", table, err)
		}
		if ds, err := r.List(context.Background(), ctl.Query{}); len(ds) > 0 || err != nil {
			t.Errorf("%s leaves %v, %v", table, ds, err)
		}
	}
	if f := r.files(); f != "" {
		t.Errorf("failed creates leave %s", f)
	}
}

func TestSocketsAreForTheirOwner(t *testing.T) {
	r := start(t, tempRoot(t))
	for _, name := range []string{ctl.Socket, ctl.NBDSocket} {
		info, err := os.Stat(filepath.Join(r.root, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	r := start(t, tempRoot(t))
	err := Run(context.Background(), Config{Root: r.root, Log: discard})
	if err == nil || !strings.Contains(err.Error(), "a daemon is already running at") {
		t.Fatal(err)
	}
	r.create("x", "0 8 zero")
}

// A change that cannot be saved is an error that says so.
func TestStateThatCannotBeSaved(t *testing.T) {
	r := start(t, tempRoot(t))
	dir := filepath.Join(r.root, "devices")
	if err := errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := r.Create(context.Background(), ctl.Create{Name: "x", Table: "0 8 zero"})
	if !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), "cannot be saved") {
		t.Errorf("got %v", err)
	}
	if ds, err := r.List(context.Background(), ctl.Query{}); len(ds) > 0 || err != nil {
		t.Errorf("it leaves %v, %v", ds, err)
	}
}

func TestDeferredRemoveAcrossRestart(t *testing.T) {
	root := tempRoot(t)
	r := start(t, root)
	ctx := context.Background()
	r.create("low", "0 64 linear mem:1M 0")
	r.create("top", "0 8 linear /dev/mapper/low 0")
	r.create("gone", "0 8 zero")
	h, err := r.server.Open(ref("gone"), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"low", "gone"} {
		if err := r.Remove(ctx, ctl.Remove{Ref: ref(name), Deferred: true}); err != nil {
			t.Fatal(err)
		}
	}
	h.Close()
	r.end(nil)

	// Nobody has the one open any more; the other is used and still marked.
	r = start(t, root)
	ds, err := r.List(ctx, ctl.Query{})
	if err != nil || len(ds) != 2 || ds[0].Name != "low" || !ds[0].DeferredRemove || ds[1].Name != "top" {
		t.Fatalf("%+v, %v", ds, err)
	}
	if err := r.Remove(ctx, ctl.Remove{Ref: ref("top")}); err != nil {
		t.Fatal(err)
	}
	r.end(nil)
	r = start(t, root)
	if ds, err := r.List(ctx, ctl.Query{}); len(ds) != 0 || err != nil {
		t.Errorf("%+v, %v", ds, err)
	}
	if f := r.files(); f != "" {
		t.Errorf("saved: %s", f)
	}
}

// The file of a device that goes by itself goes too, and one that is left does no
// harm to who has its name now.
func TestDeferredRemoveLeavesNoFile(t *testing.T) {
	root, ctx := tempRoot(t), context.Background()
	r := start(t, root)
	minor := uint32(3)
	if _, err := r.Create(ctx, ctl.Create{Name: "x", Minor: &minor, Table: "0 8 zero"}); err != nil {
		t.Fatal(err)
	}
	h, err := r.server.Open(ref("x"), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(ctx, ctl.Remove{Ref: ref("x"), Deferred: true}); err != nil {
		t.Fatal(err)
	}
	stale, err := os.ReadFile(filepath.Join(root, "devices", "3.json"))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		_, err := r.Wait(ctx, ctl.Wait{Ref: ref("x")})
		gone <- err
	}()
	h.Close()
	if err := <-gone; err != nil && !errors.Is(err, syscall.ENXIO) {
		t.Fatal(err)
	}
	r.server.Retry(ctx)
	if f := r.files(); f != "" {
		t.Errorf("left: %s", f)
	}
	minor = 7
	if _, err := r.Create(ctx, ctl.Create{Name: "x", Minor: &minor, Table: "0 16 zero"}); err != nil {
		t.Fatal(err)
	}
	r.end(nil)
	if err := os.WriteFile(filepath.Join(root, "devices", "3.json"), stale, 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, root)
	ds, err := r.List(ctx, ctl.Query{})
	if err != nil || len(ds) != 1 || ds[0].Sectors != 16 || r.files() != "7.json" {
		t.Errorf("%+v, %v, %s", ds, err, r.files())
	}
}

// A table that waits is kept whatever else happens to its device.
func TestWaitingTableIsKept(t *testing.T) {
	root, ctx := tempRoot(t), context.Background()
	disk := filepath.Join(root, "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, root)
	r.create("x", "0 8 linear "+disk+" 0")
	if _, err := r.Load(ctx, ctl.Load{Ref: ref("x"), Table: "0 16 linear " + disk + " 8"}); err != nil {
		t.Fatal(err)
	}
	r.end(nil)
	if err := os.Rename(disk, disk+"2"); err != nil {
		t.Fatal(err)
	}

	r = start(t, root)
	if _, err := r.Rename(ctx, ctl.Rename{Ref: ref("x"), NewName: "y"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rename(ctx, ctl.Rename{Ref: ref("y"), NewUUID: "u"}); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Device(ctx, ctl.Query{Ref: ref("y")}); err != nil || d.Waiting == "" || d.Live || !d.Disk {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := r.Load(ctx, ctl.Load{Ref: ref("y"), Table: "0 24 zero"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(disk+"2", disk); err != nil {
		t.Fatal(err)
	}
	r.server.Retry(ctx)
	d, err := r.Device(ctx, ctl.Query{Ref: ctl.Ref{UUID: "u"}})
	if err != nil || d.Name != "y" || d.Waiting != "" || !d.Live || !d.Inactive || d.Sectors != 8 {
		t.Errorf("%+v, %v", d, err)
	}
	// The inactive one is what it was given meanwhile.
	if d, err = r.Resume(ctx, ctl.Suspend{Ref: ref("y")}); err != nil || d.Sectors != 24 {
		t.Errorf("%+v, %v", d, err)
	}
}

// What was suspended is suspended again, when everything that reads it has been
// loaded: a snapshot reads its store, a pool its metadata.
func TestSuspendedBelow(t *testing.T) {
	root, ctx := tempRoot(t), context.Background()
	disk := filepath.Join(root, "disk")
	if err := os.WriteFile(disk, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, root)
	r.create("store", "0 4096 linear "+disk+" 0")
	r.create("meta", "0 4096 linear "+disk+" 4096")
	r.create("data", "0 4096 linear "+disk+" 8192")
	r.create("clone", "0 2048 snapshot null:1M /dev/mapper/store P 16")
	r.create("pool", "0 4096 thin-pool /dev/mapper/meta /dev/mapper/data 128 0")
	if _, err := r.Message(ctx, ctl.Message{Ref: ref("pool"), Text: "create_thin 0"}); err != nil {
		t.Fatal(err)
	}
	r.create("thin", "0 2048 thin /dev/mapper/pool 0")
	if _, err := r.Load(ctx, ctl.Load{Ref: ref("store"), Table: "0 8 linear /dev/mapper/store 0"}); err != nil {
		t.Logf("a device on itself: %v", err)
	}
	names := []string{"thin", "clone", "pool", "store", "meta", "data"}
	for _, name := range names {
		if _, err := r.Suspend(ctx, ctl.Suspend{Ref: ref(name)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		r.end(nil)
		r = start(t, root)
		for _, name := range names {
			d, err := r.Device(ctx, ctl.Query{Ref: ref(name)})
			if err != nil || !d.Live || !d.Suspended || d.Waiting != "" {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
		}
	}
	for i := range names {
		if _, err := r.Resume(ctx, ctl.Suspend{Ref: ref(names[len(names)-1-i])}); err != nil {
			t.Errorf("%s: %v", names[i], err)
		}
	}
}

// An origin waits for all its snapshots: a write to it before would show in them.
func TestOriginWaitsForItsSnapshots(t *testing.T) {
	root, ctx := tempRoot(t), context.Background()
	store := filepath.Join(root, "store")
	for _, f := range []string{store, filepath.Join(root, "disk")} {
		if err := os.WriteFile(f, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, root)
	r.create("real", "0 1024 linear "+filepath.Join(root, "disk")+" 0")
	r.create("disk", "0 1024 snapshot-origin /dev/mapper/real")
	r.create("snap", "0 1024 snapshot /dev/mapper/real "+store+" P 16")
	r.end(nil)
	if err := os.Rename(store, store+"2"); err != nil {
		t.Fatal(err)
	}
	live := func(name string) (bool, string) {
		t.Helper()
		d, err := r.Device(ctx, ctl.Query{Ref: ref(name)})
		if err != nil {
			t.Fatal(err)
		}
		return d.Live, d.Waiting
	}
	r = start(t, root)
	if l, why := live("disk"); l || !strings.Contains(why, "waiting for its snapshot snap") {
		t.Errorf("the origin is live: %v, %s", l, why)
	}
	if l, why := live("real"); !l {
		t.Errorf("what has nothing to do with it waits: %s", why)
	}
	if err := os.Rename(store+"2", store); err != nil {
		t.Fatal(err)
	}
	r.server.Retry(ctx)
	for _, name := range []string{"disk", "snap"} {
		if l, why := live(name); !l {
			t.Errorf("%s: %s", name, why)
		}
	}
	// Without the snapshot there is nothing to wait for.
	r.end(nil)
	if err := os.Remove(store); err != nil {
		t.Fatal(err)
	}
	r = start(t, root)
	if err := r.Remove(ctx, ctl.Remove{Ref: ref("snap")}); err != nil {
		t.Fatal(err)
	}
	r.server.Retry(ctx)
	if l, why := live("disk"); !l {
		t.Error(why)
	}
}

// A daemon ends although a client waits for an event, and another one for a
// device that is suspended.
func TestEndsWhileOthersWait(t *testing.T) {
	r := start(t, tempRoot(t))
	ctx := context.Background()
	r.create("x", "0 64 linear mem:1M 0")
	waits := make(chan error, 1)
	go func() {
		_, err := r.Wait(ctx, ctl.Wait{Ref: ref("x")})
		waits <- err
	}()
	if _, err := r.Suspend(ctx, ctl.Suspend{Ref: ref("x")}); err != nil {
		t.Fatal(err)
	}
	h, err := r.server.Open(ref("x"), true)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan blk.Status, 1)
	b := &blk.Bio{Op: blk.Write, End: func(b *blk.Bio) { ended <- b.Status() }}
	b.SetData(make([]byte, 512))
	h.Submit(b)
	r.server.FailSuspended()
	if st := <-ended; st != blk.IOErr {
		t.Errorf("what waited ended with %v", st)
	}
	h.Close()
	r.end(nil)
	if err := <-waits; err == nil {
		t.Error("the wait ended without an event")
	}
}

// saved is the file of a device, as far as tests look at it.
type saved struct {
	Name, UUID     string
	Live, Inactive *struct {
		Text     []string
		ReadOnly bool
	}
	Suspended bool
}

// Every acknowledged state is on the disk before the answer: what a crash at
// that moment leaves is the same.
func TestStateIsSavedBeforeTheAnswer(t *testing.T) {
	r := start(t, tempRoot(t))
	ctx := context.Background()
	saved := func() (s saved) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(r.root, "devices", r.files()))
		if err == nil {
			err = json.Unmarshal(text, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	must := func(_ ctl.Device, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r.create("x", "")
	if s := saved(); s.Name != "x" || s.Live != nil {
		t.Errorf("%+v", s)
	}
	must(r.Load(ctx, ctl.Load{Ref: ref("x"), Table: "0 8 zero", ReadOnly: true}))
	if s := saved(); s.Inactive == nil || s.Inactive.Text[0] != "0 8 zero " || !s.Inactive.ReadOnly {
		t.Errorf("%+v", s)
	}
	must(r.Resume(ctx, ctl.Suspend{Ref: ref("x")}))
	if s := saved(); s.Live == nil || s.Inactive != nil {
		t.Errorf("%+v", s)
	}
	must(r.Suspend(ctx, ctl.Suspend{Ref: ref("x")}))
	if s := saved(); !s.Suspended {
		t.Errorf("%+v", s)
	}
	must(r.Load(ctx, ctl.Load{Ref: ref("x"), Table: "0 8 error"}))
	must(r.Clear(ctx, ref("x")))
	must(r.Rename(ctx, ctl.Rename{Ref: ref("x"), NewName: "y"}))
	must(r.Rename(ctx, ctl.Rename{Ref: ref("y"), NewUUID: "u"}))
	if s := saved(); s.Inactive != nil || s.Name != "y" || s.UUID != "u" {
		t.Errorf("%+v", s)
	}
	if err := r.Remove(ctx, ctl.Remove{Ref: ref("y")}); err != nil || r.files() != "" {
		t.Errorf("%v, %s", err, r.files())
	}
}
