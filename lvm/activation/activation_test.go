package activation

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"udm/ctl"
	"udm/internal/invariants"
	"udm/lvm"
	"udm/lvm/golden"
	"udm/volume"
)

var modes = []Mode{ReadOnly, OverClones, Writable}

// groups are those of the parts, and the volumes that udm has no targets for.
var groups = map[string]map[string][]string{
	"plain": {"lin-vg": nil, "snap": nil, "few": nil},
	"thin":  {"thin": nil, "wrap": nil},
	"other": {"other": {"raid0", "raid1", "raid10", "raid5", "sound"}, "miss": nil},
}

// cached are the volumes that are left out where nothing may change.
var cached = []string{"cached", "cached2", "written"}

// writes are devices that can be written.
var writes = map[string]string{"lin-vg": "lin--vg-a", "snap": "snap-base", "few": "few-wide", "thin": "thin-t1", "wrap": "wrap-v1", "other": "other-nought", "miss": "miss-half"}

// Each volume reads as it did when lvm2 and the kernel had it, in every mode, and the
// disks are changed only when that was asked for.
func TestContents(t *testing.T) {
	compared := 0
	for part, inPart := range groups {
		sums, err := golden.Sums(part)
		must(t, err)
		for _, mode := range modes {
			r := newRig(t, part)
			before := r.disksSum()
			for group, skipped := range inPart {
				if group == "other" && mode == ReadOnly {
					skipped = slices.Sorted(slices.Values(slices.Concat(skipped, cached)))
				}
				report := r.activate(group, Options{Mode: mode, Skip: true})
				var names []string
				for _, s := range report.Skipped {
					names = append(names, s.Volume)
				}
				if slices.Sort(names); !slices.Equal(names, skipped) {
					t.Errorf("%s, %s: skipped %v, want %v", group, mode, report.Skipped, skipped)
				}
				for _, name := range visible(report) {
					got, err := r.sum(name)
					if want, readable := sums[name]; readable && (err != nil || got != want) {
						t.Errorf("%s, %s: it is not what it was: %v", name, mode, err)
					} else if readable {
						compared++
					}
				}
				if err := r.write(writes[group], 1); (err != nil) != (mode == ReadOnly) {
					t.Errorf("%s, %s: writing: %v", group, mode, err)
				}
				r.deactivate(group, "")
				r.nothing()
			}
			if changed := r.disksSum() != before; changed != (mode == Writable) {
				t.Errorf("%s, %s: the disks have changed: %t", part, mode, changed)
			}
		}
	}
	if compared < 60 {
		t.Errorf("only %d devices were compared", compared)
	}
}

// To activate again finds what there is; in another way it is refused.
func TestTwice(t *testing.T) {
	for _, mode := range modes {
		r := newRig(t, "thin")
		first := r.activate("thin", Options{Mode: mode, Skip: true})
		before := r.devices()
		r.restart()
		again := r.activate("thin", Options{Mode: mode, Skip: true})
		for i, d := range again.Devices {
			if !d.Existed || d.Name != first.Devices[i].Name {
				t.Errorf("%s: %+v was made again", mode, d)
			}
		}
		for _, other := range modes {
			if other != mode {
				_, err := r.try(r.Service, "thin", Options{Mode: other, Skip: true})
				r.wants(err, "it is active in another way; deactivate the group first: udm lvm deactivate thin")
			}
		}
		if after := r.devices(); !slices.Equal(after, before) {
			t.Errorf("%s: there are %v, and were %v", mode, after, before)
		}
		r.deactivate("thin", "")
		r.nothing()
	}
}

// Without a disk, what can be is activated; the rest only when that is asked for.
func TestMissing(t *testing.T) {
	sums, err := golden.Sums("missing")
	must(t, err)
	r := newRig(t, "other")
	r.disks = r.disks[1:2]
	report := r.activate("miss", Options{Mode: ReadOnly})
	if got := visible(report); !slices.Equal(got, []string{"miss-whole"}) || len(report.Skipped) != 3 {
		t.Errorf("there are %v without %v", got, report.Skipped)
	}
	_, err = r.try(r.Service, "miss", Options{Mode: ReadOnly, Volume: "half"})
	r.wants(err, "miss/half cannot be activated: part of it is on a missing disk")
	report = r.activate("miss", Options{Mode: ReadOnly, Partial: true})
	if len(visible(report)) != 4 {
		t.Errorf("with those that are incomplete there are %v", visible(report))
	}
	for _, name := range visible(report) {
		got, err := r.sum(name)
		if want, readable := sums[name]; readable != (err == nil) || readable && got != want {
			t.Errorf("%s: %v, and the kernel could read it: %t", name, err, readable)
		}
	}
	r.deactivate("miss", "")
	r.nothing()
}

// failing is a service whose nth change fails, and all behind it if it is killed then.
type failing struct {
	ctl.Service
	left   int
	killed bool
}

var errFailed = errors.New("this one fails")

func (f *failing) fails() bool {
	f.left--
	return f.left == -1 || f.killed && f.left < 0
}

func (f *failing) Create(ctx context.Context, c ctl.Create) (ctl.Device, error) {
	if f.fails() {
		return ctl.Device{}, errFailed
	}
	return f.Service.Create(ctx, c)
}

func (f *failing) Clone(ctx context.Context, s volume.CloneSpec) error {
	if f.fails() {
		return errFailed
	}
	return f.Service.Clone(ctx, s)
}

func (f *failing) Message(ctx context.Context, m ctl.Message) (string, error) {
	if f.fails() {
		return "", errFailed
	}
	return f.Service.Message(ctx, m)
}

func (f *failing) Remove(ctx context.Context, q ctl.Remove) error {
	if f.killed {
		return errFailed
	}
	return f.Service.Remove(ctx, q)
}

func (f *failing) RemoveObject(ctx context.Context, s volume.RemoveSpec) error {
	if f.killed {
		return errFailed
	}
	return f.Service.RemoveObject(ctx, s)
}

// When a step fails, whichever it is, nothing is left.
func TestTakenBack(t *testing.T) {
	for _, mode := range modes {
		for part, group := range map[string]string{"plain": "snap", "thin": "thin"} {
			r := newRig(t, part)
			n := 0
			for ; ; n++ {
				_, err := r.try(&failing{r.Service, n, false}, group, Options{Mode: mode})
				if err == nil {
					break
				}
				r.wants(err, errFailed.Error())
				r.nothing()
			}
			if n < 8 {
				t.Errorf("%s, %s: there were %d steps only", group, mode, n)
			}
		}
	}
}

// stride is how many steps lie between those that are tried: with the race detector each
// costs ten times as much.
func stride() int {
	if invariants.Enabled {
		return 11
	}
	return 3
}

// When the daemon ends between two steps, the devices that there were are there again,
// and to activate makes the rest, or to deactivate removes them.
func TestKilled(t *testing.T) {
	for _, mode := range modes {
		for n := 1; ; n += stride() {
			r := newRig(t, "thin")
			_, err := r.try(&failing{r.Service, n, true}, "thin", Options{Mode: mode})
			if err == nil {
				break
			}
			before := r.devices()
			r.restart()
			if after := r.devices(); !slices.Equal(after, before) || len(after) == 0 {
				t.Errorf("%s, %d: there are %v, and were %v", mode, n, after, before)
			}
			if n%2 == 0 {
				r.activate("thin", Options{Mode: mode})
			}
			r.deactivate("thin", "")
			r.nothing()
		}
	}
}

// A device in use stays, and all others with it.
func TestInUse(t *testing.T) {
	r := newRig(t, "plain")
	r.activate("snap", Options{Mode: OverClones})
	before := r.devices()
	d, err := r.Open(ctl.Ref{Name: "snap-s1"}, false)
	must(t, err)
	for _, volume := range []string{"", "base", "s1", "s-2"} {
		_, err := Deactivate(t.Context(), r.Service, "snap", volume)
		r.wants(err, "snap-s1 is in use (program 1)")
	}
	must(t, d.Close())
	_, err = r.Create(t.Context(), ctl.Create{Name: "mine", Table: "0 8 linear /dev/mapper/snap-base 0"})
	must(t, err)
	_, err = Deactivate(t.Context(), r.Service, "snap", "")
	r.wants(err, "snap-base is in use: mine depends on it")
	must(t, r.Remove(t.Context(), ctl.Remove{Ref: ctl.Ref{Name: "mine"}}))
	if after := r.devices(); !slices.Equal(after, before) {
		t.Errorf("there are %v, and were %v", after, before)
	}
	r.deactivate("snap", "")
	r.nothing()
	_, err = Deactivate(t.Context(), r.Service, "snap", "")
	r.wants(err, "snap is not active")
}

// A volume goes with what only it needs.
func TestOneVolume(t *testing.T) {
	for _, mode := range modes {
		r := newRig(t, "plain")
		one := r.activate("snap", Options{Mode: mode, Volume: "s1"})
		if got := visible(one); !slices.Equal(got, []string{"snap-base", "snap-s1", "snap-s--2"}) {
			t.Errorf("%s: with s1 there are %v", mode, got)
		}
		r.activate("snap", Options{Mode: mode, Volume: "undone"})
		if removed := r.deactivate("snap", "s-2"); len(removed) != 6 {
			t.Errorf("%s: with s-2 went %v", mode, removed)
		}
		r.deactivate("snap", "undone")
		r.nothing()

		r = newRig(t, "thin")
		r.activate("thin", Options{Mode: mode, Volume: "t1"})
		r.activate("thin", Options{Mode: mode, Volume: "onext"})
		if removed := r.deactivate("thin", "t1"); !slices.Equal(removed, []string{"thin-t1"}) {
			t.Errorf("%s: with t1 went %v", mode, removed)
		}
		r.deactivate("thin", "onext")
		r.nothing()
	}
}

// bump is a text with the transaction id of the pool raised by n, and more behind it.
func bump(text string, n byte, more string) string {
	pool := strings.Index(text, "\npool {")
	i := pool + strings.Index(text[pool:], "transaction_id = ") + len("transaction_id = ")
	return text[:i] + string(text[i]+n) + more + text[i+1:]
}

// next is the text of the next commit, which has made a volume and not told the pool.
func next(text string) string {
	text = bump(text, 1, "\nmessage1 {\ncreate = \"new\"\n}")
	t1, end := strings.Index(text, "\nt1 {"), strings.Index(text, "\nt1snap {")
	again := strings.Replace(text[t1:end], "t1 {", "new {", 1)
	id := strings.Index(again, `id = "`) + len(`id = "`)
	again = again[:id] + "AAAAAA" + again[id+6:]
	device := strings.Index(again, "device_id = ") + len("device_id = ")
	again = again[:device] + "77\norigin = \"t1\"" + again[device+strings.Index(again[device:], "\n"):]
	return text[:t1] + again + text[t1:]
}

// Messages that a commit left for a pool are sent when the pool may be changed.
func TestMessages(t *testing.T) {
	r := newRig(t, "thin")
	r.change("thin", next)
	report := r.activate("thin", Options{Mode: ReadOnly})
	i := slices.IndexFunc(report.Skipped, func(s Skipped) bool { return s.Volume == "new" })
	if i < 0 || !strings.Contains(report.Skipped[i].Why, "its pool has not created it yet") {
		t.Errorf("skipped %v", report.Skipped)
	}
	r.deactivate("thin", "")
	for _, mode := range []Mode{OverClones, Writable, Writable} {
		for n := 0; ; n++ { // that it ends between two messages changes nothing
			if _, err := r.try(&failing{r.Service, n, false}, "thin", Options{Mode: mode}); err == nil {
				break
			}
			r.nothing()
		}
		got, err := r.sum("thin-new")
		must(t, err)
		if want, err := r.sum("thin-t1"); err != nil || got != want {
			t.Errorf("%s: the snapshot is not what its origin is: %v", mode, err)
		}
		r.deactivate("thin", "")
		r.nothing()
	}
}

// A pool that is not of its group's time is refused, in every mode.
func TestPoolOfAnotherTime(t *testing.T) {
	for n, more := range map[byte]string{1: "", 2: "\nmessage1 {\ndelete = 5\n}"} {
		r := newRig(t, "thin")
		r.change("thin", func(text string) string { return bump(text, n, more) })
		for _, mode := range modes {
			_, err := r.try(r.Service, "thin", Options{Mode: mode})
			r.wants(err, "they are from different times")
			r.nothing()
		}
	}
}

// What is of another's, or is none, is refused.
func TestRefused(t *testing.T) {
	r := newRig(t, "plain")
	_, err := r.Create(t.Context(), ctl.Create{Name: "lin--vg-a", Table: "0 8 zero"})
	must(t, err)
	_, err = r.try(r.Service, "lin-vg", Options{Mode: ReadOnly})
	r.wants(err, "lin--vg-a: ")
	if !errors.Is(err, syscall.EBUSY) {
		t.Errorf("got %v", err)
	}
	if got := r.devices(); !slices.Equal(got, []string{"lin--vg-a"}) {
		t.Errorf("there are %v", got)
	}
	_, err = Deactivate(t.Context(), r.Service, "lin-vg", "")
	r.wants(err, "lin-vg is not active")
	for volume, want := range map[string]string{"none": `has no volume "none"`, "off": "lin-vg/off cannot be activated: it is activated only on request"} {
		_, err = r.try(r.Service, "lin-vg", Options{Mode: ReadOnly, Volume: volume})
		r.wants(err, want)
	}
}

// Names are taken apart as they were put together.
func TestNames(t *testing.T) {
	for name, want := range map[string][]string{
		"a-b": {"a", "b"}, "lin--vg-b--c": {"lin-vg", "b-c"}, "vg-x--real-real": {"vg", "x-real", "real"}, "vg--": {"vg-"}, "": {""},
	} {
		if got := lvm.SplitName(name); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, volume := range slices.Collect(maps.Keys(groups["other"])) {
		if got := lvm.SplitName(lvm.DeviceName("g-", volume+"-", "real")); !slices.Equal(got, []string{"g-", volume + "-", "real"}) {
			t.Errorf("%s: got %q", volume, got)
		}
	}
}
