package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/ctl"
	"udm/env"
	"udm/volume"
)

// streaming is a daemon with a pool and a snapshot s of some MiB in it.
func streaming(t *testing.T) *rig {
	r := start(t, tempRoot(t))
	ctx := context.Background()
	r.ok(r.CreatePool(ctx, volume.PoolSpec{Name: "p", Size: 64 << 20}))
	r.ok(r.CreateVolume(ctx, ctl.CreateVolume{Pool: "p", Name: "v", Size: 16 << 20}))
	d, err := r.server.Open(ref("v"), true)
	r.ok(err)
	for at := uint64(0); at < 8<<11; at += 2048 {
		r.ok(blk.WriteSectors(env.Real(), d, blktest.Pattern(at, 2048, 1), at, 0))
	}
	r.ok(d.Close())
	r.ok(r.Snapshot(ctx, volume.SnapshotSpec{Of: "v", Names: []string{"s"}}))
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// only expects that the daemon has these devices, and no operation.
func (r *rig) only(names ...string) {
	r.t.Helper()
	ds, err := r.List(context.Background(), ctl.Query{})
	r.ok(err)
	ops, err := r.Operations(context.Background())
	r.ok(err)
	if len(ds) != len(names) || len(ops) > 0 {
		r.t.Errorf("there are %+v and operations %+v", ds, ops)
	}
}

// A stream goes through the daemon while it is made.
func TestStreamThroughAPipe(t *testing.T) {
	r := streaming(t)
	ctx := context.Background()
	pr, pw := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := r.Send(ctx, volume.SendSpec{Name: "s"}, pw)
		sent <- errors.Join(err, pw.Close())
	}()
	got, err := r.Receive(ctx, volume.ReceiveSpec{Name: "n", Pool: "p"}, pr)
	r.ok(errors.Join(err, <-sent))
	if got.Name != "n" {
		t.Errorf("received %+v", got)
	}
	r.only("p", "v", "s", "n")
	var a, b bytes.Buffer
	r.ok(r.Send(ctx, volume.SendSpec{Name: "s"}, &a))
	r.ok(r.Send(ctx, volume.SendSpec{Name: "n"}, &b))
	if a.Len() < 8<<20 || a.Len() != b.Len() {
		t.Errorf("%d and %d bytes are sent", a.Len(), b.Len())
	}
}

// halted is a stream that stops in its middle until it is closed.
type halted struct {
	*io.PipeReader
	reached chan bool
}

func haltedStream(t *testing.T, p []byte) (*halted, *io.PipeWriter) {
	pr, pw := io.Pipe()
	s := &halted{pr, make(chan bool)}
	go func() {
		_, _ = pw.Write(p) // fails when the reader is closed
		close(s.reached)
	}()
	t.Cleanup(func() { pr.Close() })
	return s, pw
}

// A client that hangs up, an operation that is cancelled, and a daemon that ends, leave
// nothing of a stream that has stopped.
func TestStreamsThatStop(t *testing.T) {
	r := streaming(t)
	ctx := context.Background()
	var whole bytes.Buffer
	r.ok(r.Send(ctx, volume.SendSpec{Name: "s"}, &whole))
	for name, end := range map[string]func(cancel func(), w *io.PipeWriter){
		"hangs up": func(cancel func(), _ *io.PipeWriter) { cancel() },
		"is cut":   func(_ func(), w *io.PipeWriter) { _ = w.Close() },
		"cancelled": func(func(), *io.PipeWriter) {
			ops, err := r.Operations(ctx)
			r.ok(err)
			if len(ops) != 1 {
				t.Fatalf("operations %+v", ops)
			}
			r.ok(r.CancelOperation(ctx, ctl.Operation{ID: ops[0].ID}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			some, cancel := context.WithCancel(ctx)
			defer cancel()
			in, w := haltedStream(t, whole.Bytes()[:5<<20])
			done := make(chan error, 1)
			go func() {
				_, err := r.Receive(some, volume.ReceiveSpec{Name: "n", Pool: "p"}, in)
				done <- err
			}()
			<-in.reached
			r.filling()
			end(cancel, w)
			if err := <-done; err == nil {
				t.Error("it is received")
			}
			// Whoever hangs up does not wait for what becomes of it.
			r.settled()
			r.only("p", "v", "s")
		})
	}
}

// filling waits until a stream is written into its device.
func (r *rig) filling() {
	r.t.Helper()
	for {
		ops, err := r.Operations(context.Background())
		r.ok(err)
		if len(ops) == 1 && ops[0].Done > 0 {
			return
		}
	}
}

// settled waits until no operation is under way, nor what comes of one.
func (r *rig) settled() {
	r.t.Helper()
	for {
		ops, err := r.Operations(context.Background())
		r.ok(err)
		_, err = r.Device(context.Background(), ctl.Query{Ref: ref("n-incoming")})
		if len(ops) == 0 && errors.Is(err, syscall.ENXIO) {
			return
		}
	}
}

// A client that takes nothing of what is sent is given up when its operation is
// cancelled.
func TestSendToNobody(t *testing.T) {
	r := streaming(t)
	ctx := context.Background()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- r.Send(ctx, volume.SendSpec{Name: "s"}, pw) }()
	_, err := io.ReadFull(pr, make([]byte, 4096))
	r.ok(err)
	ops, err := r.Operations(ctx)
	r.ok(err)
	if len(ops) != 1 || ops[0].Kind != "send" || len(ops[0].Objects) == 0 {
		t.Fatalf("operations %+v", ops)
	}
	r.ok(r.CancelOperation(ctx, ctl.Operation{ID: ops[0].ID}))
	_ = pr.Close()
	if err := <-done; err == nil {
		t.Error("all of it is sent")
	}
	r.only("p", "v", "s")
}

// An error after the beginning of what is sent reaches the client in words.
func TestSendFailsOnTheWay(t *testing.T) {
	r := streaming(t)
	ctx := context.Background()
	d, err := r.server.Open(ref("v"), true)
	r.ok(err)
	r.ok(blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 4<<11, 2), 0, 0))
	r.ok(d.Close())
	r.ok(r.Snapshot(ctx, volume.SnapshotSpec{Of: "v", Names: []string{"t"}}))
	d, err = r.server.Open(ref("s"), true)
	r.ok(err)
	r.ok(blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 1, 3), 0, 0))
	r.ok(d.Close())
	for _, from := range []string{"s", "nothing"} {
		err := r.Send(ctx, volume.SendSpec{Name: "t", From: from}, io.Discard)
		var e *ctl.Error
		if !errors.As(err, &e) || e.Reason == "" {
			t.Errorf("from %s: %v", from, err)
		}
	}
}
