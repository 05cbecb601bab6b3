package volume

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
	"udm/targets/thin"
)

var ctx = context.Background()

// rig is a manager over real targets on a host, in a simulator.
type rig struct {
	t   *testing.T
	sim *env.Sim
	h   *host
	c   *dm.Control
	k   *kept
	m   *Manager
}

// boot starts a manager on what is on a host.
func boot(t *testing.T, h *host) *rig {
	t.Helper()
	r := &rig{t: t, sim: env.NewStepped(), h: h}
	r.c = dm.NewControl(r.sim, opener{h}, all.Types()...)
	r.task(func() {
		var err error
		if r.k, err = newKept(r.c, hostFS{h}, "/udm/devices"); err != nil {
			t.Fatal(err)
		}
		r.m = New(Machine{Env: r.sim, Devices: r.k, Files: hostFiles{h, r.sim}, FS: hostFS{h}, Root: "/udm", Log: slog.New(slog.DiscardHandler)})
		if err := r.m.Recover(ctx); err != nil {
			t.Fatalf("recover: %v", err)
		}
		r.k.load()
		r.settle()
	})
	return r
}

// task runs f to its end, all else beside it.
func (r *rig) task(f func()) {
	r.t.Helper()
	done := false
	r.sim.Go("test", func() { f(); done = true })
	r.sim.NewWait().Until(func() bool { return done })
}

// settle waits until nothing is under way, and all is hydrated but what has a source that
// fails.
func (r *rig) settle() {
	end := r.sim.Now() + 10*time.Minute
	for (len(r.m.Operations()) > 0 || r.hydrates()) && r.sim.Now() < end && r.h.dead == nil {
		r.sleep(time.Second)
	}
}

// deadSource is a source that cannot be read.
const deadSource = "gone"

func (r *rig) hydrates() bool {
	return slices.ContainsFunc(r.c.List(), func(d *dm.Device) bool {
		source := r.k.Record(d.Name()).Source
		return source != "" && source != deadSource
	})
}

func (r *rig) sleep(d time.Duration) {
	over := false
	r.sim.AfterFunc(d, func() { over = true })
	r.sim.NewWait().Until(func() bool { return over })
}

// stop ends the manager and the devices in order, or after a crash.
func (r *rig) stop() {
	r.t.Helper()
	dead := r.h.dead != nil
	r.task(func() {
		r.m.Close()
		if err := r.c.Close(); err != nil && !dead {
			r.t.Error(err)
		}
	})
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) image(name string, sectors uint64) string {
	r.t.Helper()
	p := "/img/" + name
	f := hostFiles{r.h, r.sim}
	r.ok(f.Make([]File{{Path: p, Size: sectors * blk.SectorSize}}))
	seed := uint64(len(r.h.names))
	r.ok(blk.WriteSectors(r.sim, r.h.names[p].dev, blktest.Pattern(0, sectors, seed), 0, blk.FUA))
	r.ok(blk.FlushDevice(r.sim, r.h.names[p].dev))
	return p
}

// write fills sectors of a device and flushes.
func (r *rig) write(name string, at, sectors, seed uint64) {
	r.t.Helper()
	d, err := r.c.Name(name)
	r.ok(err)
	h, err := d.Open(true)
	r.ok(err)
	r.ok(blk.WriteSectors(r.sim, h, blktest.Pattern(at, sectors, seed), at, 0))
	r.ok(blk.FlushDevice(r.sim, h))
	r.ok(h.Close())
}

// contents is what every object holds, by its name, and every image.
func (r *rig) contents() map[string]string {
	r.t.Helper()
	all := map[string]string{}
	for _, d := range r.c.List() {
		o, err := r.m.object(d.Name())
		if err != nil {
			all[d.Name()] = "no table"
			continue
		}
		if o.kind == Pool || r.m.whole(o) != nil {
			all[d.Name()] = fmt.Sprint(o.kind, o.sectors)
			continue
		}
		h, err := d.Open(false)
		r.ok(err)
		all[d.Name()] = fmt.Sprint(o.kind, " ", r.sum(h))
		if len(o.record.Labels) > 0 {
			all[d.Name()] += fmt.Sprint(o.record.Labels)
		}
		r.ok(h.Close())
	}
	for name, n := range r.h.names {
		if path.Dir(name) == "/img" {
			all[name] = r.sum(n.dev)
		}
	}
	return all
}

func (r *rig) sum(d blk.Device) string {
	n := d.Limits().Size
	p := make([]byte, n*blk.SectorSize)
	if err := blk.ReadSectors(r.sim, d, p, 0); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %.8x", n, sha256.Sum256(p))
}

// check compares everything that is kept with everything that is there.
func (r *rig) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if ops := r.m.Operations(); len(ops) > 0 {
		bad("operations are not over: %+v", ops)
	}
	names, _ := hostFS{r.h}.ReadDir("/udm/operations")
	if len(names) > 0 {
		bad("the journal has %q", names)
	}
	named := map[string]bool{}
	ids := map[string][]uint32{}
	for _, d := range r.c.List() {
		r.checkDevice(d, named, ids, bad)
	}
	for _, name := range r.h.files() {
		kept := strings.TrimSuffix(name, noteSuffix)
		if !named[name] && r.h.names[kept+noteSuffix] == nil {
			bad("nothing uses the file %s", name)
		}
	}
	for _, d := range r.c.List() {
		if got, err := thin.Volumes(d); err == nil {
			want := ids[d.Name()]
			slices.Sort(want)
			if !slices.Equal(got, want) {
				bad("%s has the volumes %v, tables %v", d.Name(), got, want)
			}
		}
	}
	return errors.Join(errs...)
}

func (r *rig) checkDevice(d *dm.Device, named map[string]bool, ids map[string][]uint32, bad func(string, ...any)) {
	st := d.Status()
	if st.Suspended || st.InternallySuspended || st.Inactive || !st.Live {
		bad("%s: %+v", st.Name, st)
		return
	}
	o := &object{name: st.Name, dev: d, record: r.k.Record(st.Name)}
	specs, _, _ := d.Loaded(false)
	r.m.read(o, specs)
	for _, f := range o.record.Files {
		named[f] = true
		if r.h.names[f] == nil {
			bad("%s has lost its file %s", o.name, f)
		}
	}
	lines, _ := r.c.ParseLines(specs)
	for _, l := range lines {
		for _, w := range l.Devices() {
			named[*w.Name] = true
		}
		if v, ok := l.(*thin.ThinLine); ok {
			pool := r.c.Mapped(v.Pool).Name()
			ids[pool] = append(ids[pool], v.ID)
		}
	}
	for _, suffix := range []string{realSuffix, baseSuffix} {
		if front, ok := strings.CutSuffix(o.name, suffix); ok && len(r.m.users(o.name)) == 0 {
			bad("nothing depends on %s, which was made for %s", o.name, front)
		}
	}
	if text, err := r.k.fs.ReadFile(r.k.file(d)); err != nil || !strings.Contains(string(text), fmt.Sprintf("%q", o.name)) {
		bad("%s is not saved: %v %s", o.name, err, text)
	}
}

func diff(a, b map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if a[k] != b[k] {
			out = append(out, fmt.Sprintf("%s: %s, want %s", k, a[k], b[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[k]; !ok {
			out = append(out, fmt.Sprintf("%s is missing, want %s", k, b[k]))
		}
	}
	return strings.Join(out, "\n")
}

func linearTable(p string, sectors uint64) []dm.Spec {
	return []dm.Spec{{Len: sectors, Type: "linear", Params: p + " 0"}}
}
