package edit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/lvm"
	"udm/targets/thin/thinmeta"
)

var errGone = errors.New("there is no group")

// state is the group in words, but for messages to pools and transaction ids. It fails for a
// group that is in any doubt.
func (r *rig) state() string {
	r.Helper()
	a := r.scan()
	if a == nil {
		return "no group"
	}
	if a.Err != nil {
		r.Fatal(a.Err)
	}
	for _, p := range a.Problems {
		if !strings.Contains(p, "is old: seqno") && !strings.Contains(p, "says that it belongs to no group") && !strings.Contains(p, "was removed from the group") {
			r.Fatal(p)
		}
	}
	return fmt.Sprintf("%s on %d disks\n%s", a.Name, len(a.PVs), layout(a.Group))
}

// bare is a state without what differs before and after a pool got its messages.
func bare(state string) string {
	var b strings.Builder
	for line := range strings.Lines(state) {
		line, _, _ = strings.Cut(line, " [{")
		b.WriteString(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), " []") + "\n")
	}
	return b.String()
}

// settled makes pools follow the text, as their activation does, and fails unless they
// have exactly the volumes of the text.
func (r *rig) settled() {
	r.Helper()
	ed := r.edit()
	for _, l := range ed.Group().LVs {
		k, ok := l.Segments[0].Kind.(*lvm.ThinPool)
		if !ok {
			continue
		}
		got, err := ed.settle(l)
		r.must(err)
		var want []uint32
		for _, v := range ed.Group().LVs {
			if t, ok := v.Segments[0].Kind.(*lvm.Thin); ok && t.Pool == l.Name {
				want = append(want, t.Device)
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			r.Fatalf("the pool %s has %v, want %v", l.Name, got, want)
		}
		r.must(ed.withMetadata(l, k, func(m *thinmeta.Metadata) error {
			if m.TransactionID() != k.Transaction {
				return fmt.Errorf("transaction %d, want %d", m.TransactionID(), k.Transaction)
			}
			return nil
		}))
	}
}

// goesOn fails unless the group can be changed after an interruption.
func (r *rig) goesOn() {
	r.Helper()
	r.settled()
	r.change(func(ed *Edit) error {
		for _, d := range ed.strangers {
			r.must(ed.RemoveDisk(d.Name))
		}
		return ed.CreateVolume(Volume{Name: "after", Extents: 1})
	})
}

// watched calls see before each write and flush.
type watched struct {
	blk.Device
	see func()
}

func (d *watched) Submit(b *blk.Bio) {
	if b.Op != blk.Read {
		d.see()
	}
	d.Device.Submit(b)
}

// cuts calls f with copies of the disks after power cuts before each write, and after
// the last one.
func (r *rig) cuts(t *testing.T, change func(*rig) error, f func(*rig)) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 1
	}
	n := uint64(0)
	cut := func() {
		for range seeds {
			n++
			f(r.with(func(d blk.Device) blk.Device { return d.(*memdev.Device).CrashClone(n) }))
		}
		f(r.with(func(d blk.Device) blk.Device { return d.(*memdev.Device).CrashCloneNone() }))
	}
	var once sync.Mutex
	see := func() { once.Lock(); cut(); once.Unlock() }
	if err := change(r.with(func(d blk.Device) blk.Device { return &watched{d, see} })); err != nil {
		t.Fatal(err)
	}
	cut()
}

// few is operations with -short: only those.
func few(all []operation, names ...string) []operation {
	if !testing.Short() {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(o operation) bool { return !slices.Contains(names, o.name) })
}

// A power cut at any write of any operation leaves the group as before or as after it,
// once after never as before again, and it can be changed on.
func TestPowerCuts(t *testing.T) {
	start := newRig(t, 3)
	base(start)
	for _, o := range few(operations, "create a thin snapshot", "remove a pool", "extend a volume", "add a disk", "replace a disk") {
		t.Run(o.name, func(t *testing.T) {
			r := start.with(func(d blk.Device) blk.Device { return d.(*memdev.Device).CrashCloneAll() })
			r.TB = t
			done := r.with(func(d blk.Device) blk.Device { return d.(*memdev.Device).Clone() })
			before := bare(r.state())
			r.must(o.change(done))
			after := bare(done.state())
			seen := map[string]int{}
			r.cuts(t, o.change, func(cut *rig) {
				state := bare(cut.state())
				if state != before && state != after {
					t.Fatalf("got\n%s\nwant\n%s\nor\n%s", state, before, after)
				}
				seen[state]++
				cut.goesOn()
			})
			if seen[before] == 0 || seen[after] == 0 {
				t.Errorf("%d states as before, %d as after", seen[before], seen[after])
			}
		})
	}
}

// The same for the first and the last moments of a group.
func TestPowerCutsOfGroups(t *testing.T) {
	r := newRig(t, 3)
	seen := map[string]int{}
	count := func(cut *rig) { seen[cut.state()]++ }
	r.cuts(t, createGroup, count)
	r.cuts(t, func(r *rig) error { return RemoveGroup(env.Real(), r.scan()) }, count)
	if len(seen) != 2 || seen["no group"] == 0 || seen["vg on 3 disks\n"] == 0 {
		t.Errorf("%v", seen)
	}
	r.must(createGroup(r)) // the disks are physical volumes of no group: as good as new
	r.sound()
}

// Whatever I/O fails, the error says so, and the group is as before or as after.
func TestFailEach(t *testing.T) {
	start := newRig(t, 3)
	base(start)
	for _, o := range few(operations, "create two thin volumes", "create a snapshot") {
		t.Run(o.name, func(t *testing.T) {
			fresh := func(t *testing.T) *rig {
				r := start.with(func(d blk.Device) blk.Device { return d.(*memdev.Device).Clone() })
				r.TB = t
				return r
			}
			done := fresh(t)
			before := bare(done.state())
			done.must(o.change(done))
			after := bare(done.state())
			blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
				r := fresh(t)
				err := o.change(r.with(f.Wrap))
				var some *lvm.Incomplete
				state := bare(r.state())
				if state != before && state != after || (err == nil || errors.As(err, &some)) && state != after {
					t.Fatalf("%v: %v, state\n%s", f, err, state)
				}
				if err == nil {
					r.sound()
				}
				if !f.Sticky() && !errors.As(err, &some) {
					r.nothingPrecommitted()
				}
				r.goesOn()
			})
		})
	}
}

// nothingPrecommitted fails if a header refers to a text that is not committed.
func (r *rig) nothingPrecommitted() {
	r.Helper()
	for _, d := range r.disks {
		p := make([]byte, blk.SectorSize)
		r.must(blk.ReadSectors(env.Real(), d.Device, p, 8)) // the header of the only area
		if second := p[40+24 : 40+48]; !bytes.Equal(second, make([]byte, 24)) {
			r.Errorf("%s has a precommitted text: % x", d.Name, second)
		}
	}
}
