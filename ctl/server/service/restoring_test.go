package service

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/leaf"
	"udm/ctl"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// slow is an opener whose disks take until release is closed.
type slow struct {
	*leaf.Opener
	opening chan struct{}
	release chan struct{}
}

func (s slow) Open(name string, write bool) (blk.Device, dm.Number, error) {
	s.opening <- struct{}{}
	<-s.release
	return s.Opener.Open(name, write)
}

// A service answers questions while it is restored; what changes something waits,
// and may give up.
func TestAnswersWhileRestoring(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	first := started(t, root)
	if err := first.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{"a": "0 8 zero", "b": "0 8 linear mem:1M 0"} {
		if _, err := first.Create(ctx, ctl.Create{Name: name, Table: table}); err != nil {
			t.Fatal(err)
		}
	}
	ended(t, first)

	opener := slow{leaf.New(env.Real()), make(chan struct{}, 10), make(chan struct{})}
	s, err := New(Config{Root: root, Types: all.Types(), Opener: opener})
	if err != nil {
		t.Fatal(err)
	}
	restored := make(chan error, 1)
	go func() { restored <- s.Restore(ctx) }()
	<-opener.opening
	if v, err := s.Version(ctx); err != nil || v.Restoring == nil || v.Restoring.Total != 2 || v.Restoring.Done == 2 {
		t.Errorf("%+v, %v", v, err)
	}
	if ds, err := s.List(ctx, ctl.Query{}); err != nil || len(ds) != 2 {
		t.Errorf("%+v, %v", ds, err)
	}
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Suspend(impatient, ctl.Suspend{Ref: ctl.Ref{Name: "a"}}); !errors.Is(err, syscall.EINTR) {
		t.Errorf("a command that gave up: %v", err)
	}
	if list, err := s.Labelled(impatient, ctl.Labelled{Label: "l"}); !errors.Is(err, syscall.EINTR) {
		t.Errorf("what is not restored may have a label: %v, %v", list, err)
	}
	if o, err := s.Object(impatient, ctl.Object{Name: "c", Settled: true}); !errors.Is(err, syscall.EINTR) {
		t.Errorf("what is not restored may be there: %v, %v", o, err)
	}
	made := make(chan error, 1)
	go func() {
		_, err := s.Create(ctx, ctl.Create{Name: "c", Table: "0 8 zero"})
		made <- err
	}()
	close(opener.release)
	if err := errors.Join(<-restored, <-made); err != nil {
		t.Error(err)
	}
	if v, err := s.Version(ctx); err != nil || v.Restoring != nil {
		t.Errorf("%+v, %v", v, err)
	}
	ended(t, s)
}
