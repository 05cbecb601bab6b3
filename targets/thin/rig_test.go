package thin

import (
	"fmt"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/thin/thintools"
)

func types() []*dm.Type { return []*dm.Type{PoolType(), Type()} }

// The rig's disks: m holds metadata, d data, o an external origin.
const bs = 128 // sectors in a block, unless a test says otherwise

// rig is a pool over memory disks in a stepped simulator.
type rig struct {
	*targettest.Rig
	pool *dm.Device
}

func newRig(t testing.TB, tune ...func(*blk.Limits)) *rig {
	r := &rig{}
	t.Cleanup(r.check) // runs after the rig is closed
	r.Rig = targettest.New(t, types(), tune...)
	r.Disk("m").Resize(4096) // 512 metadata blocks
	return r
}

// check runs the offline checker after everything is closed.
func (r *rig) check() {
	if r.Failed() || r.pool == nil {
		return
	}
	rep, err := thintools.Check(r.Sim, r.Disk("m"), thintools.CheckOptions{})
	if err != nil || rep.Err() != nil {
		r.Errorf("metadata: %v, %v", err, rep)
	}
}

// start makes the pool device of n blocks with features.
func (r *rig) start(blocks uint64, features ...string) {
	r.Helper()
	r.Disk("d").Resize(max(blocks*bs, r.Disk("d").Limits().Size))
	r.pool = r.Device("pool", poolTable(blocks, features...))
}

func poolTable(blocks uint64, features ...string) string {
	f := ""
	if len(features) > 0 {
		f = fmt.Sprintf(" %d %s", len(features), strings.Join(features, " "))
	}
	return fmt.Sprintf("0 %d thin-pool m d %d 0%s", blocks*bs, bs, f)
}

// msg sends a message that must succeed.
func (r *rig) msg(format string, args ...any) {
	r.Helper()
	r.Message(r.pool, fmt.Sprintf(format, args...), "", 0)
}

// thin makes volume id and a device of n blocks for it.
func (r *rig) thin(id int, blocks uint64) *dm.Device {
	r.Helper()
	r.msg("create_thin %d", id)
	return r.open(id, blocks)
}

func (r *rig) open(id int, blocks uint64) *dm.Device {
	r.Helper()
	return r.Device(fmt.Sprintf("thin%d", id), fmt.Sprintf("0 %d thin /dev/mapper/pool %d", blocks*bs, id))
}

// send submits without running anything.
func (r *rig) send(d *dm.Device, op blk.Op, flags blk.Flags, sector, sectors, seed uint64) *targettest.IO {
	x := &targettest.IO{}
	x.Op, x.Flags, x.Sector, x.Sectors = op, flags, sector, sectors
	if op.HasData() {
		x.Data = blktest.Pattern(sector, sectors, seed)
		x.SetData(x.Data)
	}
	x.End = func(*blk.Bio) { x.Ends++ }
	d.Submit(&x.Bio)
	return x
}

// step runs one work and reports whether there was one.
func (r *rig) step() {
	r.Helper()
	if !r.Sim.Step() {
		r.Fatal("nothing to step")
	}
}

// held checks the requests that wait at a gate, one line each.
func (r *rig) held(name string, want ...string) []blktest.Request {
	r.Helper()
	rs := r.Gate(name).Held()
	var got []string
	for _, q := range rs {
		_, s, _ := strings.Cut(q.String(), " ")
		got = append(got, s)
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		r.Fatalf("held at %s: %q, want %q", name, got, want)
	}
	return rs
}

// release lets the oldest held request go.
func (r *rig) release(name string) {
	r.Helper()
	r.Gate(name).Release(r.Gate(name).Held()[0].Index)
}

// info returns the fields of a device's status line.
func (r *rig) info(d *dm.Device) []string {
	return strings.Fields(d.Lines(dm.Info, false, 0)[0].Params)
}

// usage checks the used data blocks in the pool's status.
func (r *rig) usage(want uint64) {
	r.Helper()
	if got := r.info(r.pool)[2]; !strings.HasPrefix(got, fmt.Sprintf("%d/", want)) {
		r.Errorf("%s data blocks in use, want %d", got, want)
	}
}

type ioT = targettest.IO

// noZeroes makes zeroing visible as writes.
func noZeroes(l *blk.Limits) { l.MaxWriteZeroes = 0 }

// internals are the objects behind a thin device.
func (r *rig) internals(d *dm.Device) (*pool, *thin) {
	th := d.Target(0).Mapper().(*thin)
	return th.pool, th
}
