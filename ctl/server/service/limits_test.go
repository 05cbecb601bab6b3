package service

import (
	"context"
	"errors"
	"reflect"
	"syscall"
	"testing"

	"udm/blk"
	"udm/ctl"
)

// Limits last, those of devices and of groups, and go with their device.
func TestLimitsAreKept(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	s := started(t, root)
	must(t, s.Restore(ctx))
	for _, name := range []string{"a", "b"} {
		_, err := s.Create(ctx, ctl.Create{Name: name, Table: "0 2048 linear mem:1M:" + name + " 0"})
		must(t, err)
	}
	group := ctl.Limit{Group: "g", Write: ctl.Rate{IOPS: 1000}}
	a := ctl.Limit{Device: "a", Group: "g", Read: ctl.Rate{IOPS: 1 << 20, IOPSBurst: 3, Bytes: 1, BytesBurst: 2 * blk.SectorSize}}
	if err := s.Limit(ctx, a); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a group that there is not: %v", err)
	}
	must(t, s.Limit(ctx, group))
	must(t, s.Limit(ctx, a))
	must(t, s.Limit(ctx, ctl.Limit{Device: "b", Write: ctl.Rate{Bytes: 4096}}))
	must(t, s.Limit(ctx, ctl.Limit{Device: "b"}))
	if err := s.Limit(ctx, ctl.Limit{Group: "g"}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a group in use: %v", err)
	}
	ended(t, s)
	s = started(t, root)
	must(t, s.Restore(ctx))
	got, err := s.Limits(ctx)
	must(t, err)
	if !reflect.DeepEqual(got, []ctl.Limit{group, a}) {
		t.Errorf("%+v", got)
	}
	holds(t, s)
	must(t, s.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: "a"}}))
	s.Retry(ctx)
	must(t, s.Limit(ctx, ctl.Limit{Group: "g"}))
	if got, err := s.Limits(ctx); err != nil || len(got) != 0 || len(s.limits.own) != 0 || len(s.limits.groups) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	ended(t, s)
}

// holds expects the third read to wait, and to pass when the limit is taken away.
func holds(t *testing.T, s *Service) {
	t.Helper()
	d, err := s.Open(ctl.Ref{Name: "a"}, false)
	must(t, err)
	refused, last := 0, make(chan blk.Status, 1)
	for range 3 { // the burst is two
		b := &blk.Bio{Op: blk.Read, Flags: blk.NoWait}
		b.SetData(make([]byte, blk.SectorSize))
		ended := make(chan blk.Status, 1)
		b.End = func(b *blk.Bio) { ended <- b.Status() }
		d.Submit(b)
		if <-ended == blk.WouldBlock {
			refused++
		}
	}
	if refused == 0 {
		t.Error("the limit is not in force")
	}
	b := &blk.Bio{Op: blk.Read, End: func(b *blk.Bio) { last <- b.Status() }}
	b.SetData(make([]byte, blk.SectorSize))
	d.Submit(b)
	must(t, s.Limit(context.Background(), ctl.Limit{Device: "a"}))
	if st := <-last; st != blk.OK {
		t.Error(st)
	}
	must(t, d.Close())
}
