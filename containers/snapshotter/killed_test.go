//go:build linux

package snapshotter

import (
	"flag"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"

	"udm/containers/internal/rig"
)

var moments = flag.Bool("moments", false, "kill the daemon at every command and each moment of it, not one moment each")

// unpack is what the test below does, in steps; each makes and takes away the snapshots
// that it names.
var unpack = []struct {
	do         func(s *snap) error
	made, gone string
}{
	{do: prepare("x", ""), made: "x"},
	{do: func(s *snap) error { return s.Commit(ctx, "l", "x") }, made: "l", gone: "x"},
	{do: prepare("c", "l"), made: "c"},
	{do: func(s *snap) error {
		_, err := s.Update(ctx, snapshots.Info{Name: "c", Labels: map[string]string{"k": "v"}})
		return err
	}},
	{do: func(s *snap) error { _, err := s.View(ctx, "v", "l"); return err }, made: "v"},
	{do: remove("v"), gone: "v"},
	{do: remove("c"), gone: "c"},
	{do: remove("l"), gone: "l"},
	{do: func(s *snap) error { _, err := s.Prepare(ctx, "i", "", ofImage(s.b.image)); return err }, made: "i"},
	{do: remove("i"), gone: "i"},
}

func prepare(key, parent string) func(s *snap) error {
	return func(s *snap) error { _, err := s.Prepare(ctx, key, parent); return err }
}

func remove(key string) func(s *snap) error { return func(s *snap) error { return s.Remove(ctx, key) } }

// TestKilled kills the daemon and the snapshotter at each command. The next ones know all
// that was acknowledged, perhaps what was asked for last, and nothing else; they remove
// it and nothing is left.
func TestKilled(t *testing.T) {
	b := newBed(t)
	for at := 0; ; at++ {
		killed := true
		for m := range rig.Moments {
			if *moments || m == rig.Moment(at%int(rig.Moments)) {
				killed = b.killedAt(t, at, m)
			}
		}
		if !killed {
			return
		}
	}
}

func (b *bed) killedAt(t *testing.T, at int, m rig.Moment) bool {
	c := b.config()
	k := &rig.Killer{Service: b.Client, Daemon: b.Daemon, At: at, Moment: m}
	s := &snap{New(c, k), b, ""}
	sure, perhaps := []string{}, []string{}
	for _, step := range unpack {
		if err := step.do(s); err != nil {
			if !k.Killed() {
				t.Fatal(err)
			}
			perhaps = append(perhaps, step.made, step.gone)
			break
		}
		if sure = slices.DeleteFunc(sure, func(key string) bool { return key == step.gone }); step.made != "" {
			sure = append(sure, step.made)
		}
	}
	if k.Killed() {
		b.Start()
	}
	s.ok(s.Close())
	s = &snap{New(c, b.Client), b, ""}
	defer s.Close()
	keys := s.keys()
	for _, key := range keys {
		if !slices.Contains(sure, key) && !slices.Contains(perhaps, key) {
			t.Errorf("killed at %d, %d: there is %s", at, m, key)
		}
	}
	for _, key := range sure {
		if !slices.Contains(keys, key) && !slices.Contains(perhaps, key) {
			t.Errorf("killed at %d, %d: there is no %s", at, m, key)
		}
	}
	s.purge()
	return k.Killed()
}

// purge removes all snapshots, children first, as containerd does with those that it
// does not know, and then there are no volumes and orphans.
func (s *snap) purge() {
	s.b.t.Helper()
	for keys := s.keys(); len(keys) > 0; keys = s.keys() {
		for _, key := range keys {
			_ = s.Remove(ctx, key)
		}
	}
	// What makes the empty file system may have been cut off; the next who needs one takes
	// it away.
	s.ok(prepare("x", "")(s))
	s.ok(s.Remove(ctx, "x"))
	s.nothingLeft()
	orphans, err := s.b.Client.Orphans(ctx)
	if s.ok(err); len(orphans) > 0 {
		s.b.t.Errorf("orphans %v are left", orphans)
	}
}
