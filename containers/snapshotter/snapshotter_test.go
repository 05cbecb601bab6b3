//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"udm/containers/internal/rig"
	"udm/ctl"
	"udm/pdata"
	"udm/targets/thin"
	"udm/volume"
)

var ctx = context.Background()

// snap is a snapshotter under test.
type snap struct {
	*Snapshotter
	b   *bed
	dir string // for mounts
}

func (b *bed) open(c Config) *snap {
	b.t.Helper()
	s := &snap{New(c, b.Client), b, rig.Dir(b.t)}
	b.t.Cleanup(func() { s.Close() })
	return s
}

func (s *snap) ok(err error) {
	s.b.t.Helper()
	if err != nil {
		s.b.t.Fatal(err)
	}
}

// mounted runs f where a snapshot is mounted.
func (s *snap) mounted(key string, f func(dir string)) {
	s.b.t.Helper()
	ms, err := s.Mounts(ctx, key)
	s.ok(err)
	s.ok(mount.All(ms, s.dir))
	f(s.dir)
	s.ok(mount.UnmountAll(s.dir, 0))
}

// layer makes a committed snapshot with a file that has its name.
func (s *snap) layer(name, parent string, opts ...snapshots.Opt) {
	s.b.t.Helper()
	_, err := s.Prepare(ctx, "active-"+name, parent, opts...)
	s.ok(err)
	s.mounted("active-"+name, func(dir string) { s.ok(os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600)) })
	s.ok(s.Commit(ctx, name, "active-"+name))
}

// has checks the files of a snapshot, by looking at a view of it.
func (s *snap) has(name string, files ...string) {
	s.b.t.Helper()
	_, err := s.View(ctx, "view", name)
	s.ok(err)
	s.mounted("view", func(dir string) {
		entries, err := os.ReadDir(dir)
		s.ok(err)
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if s.ok(err); string(text) != e.Name() {
				s.b.t.Errorf("%s of %s has %q", e.Name(), name, text)
			}
		}
		if !slices.Equal(got, files) {
			s.b.t.Errorf("%s has %v, want %v", name, got, files)
		}
	})
	s.ok(s.Remove(ctx, "view"))
}

func (s *snap) keys() (keys []string) {
	s.b.t.Helper()
	s.ok(s.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		keys = append(keys, i.Name)
		return nil
	}))
	return keys
}

// nothingLeft waits until the daemon has no volume of the snapshotter any more.
func (s *snap) nothingLeft() {
	s.b.t.Helper()
	rig.Until(s.b.t, "the volumes are gone", func() bool { return len(s.b.Objects(s.b.t, s.Prefix+"-")) == 0 })
}

// Another snapshotter on the same daemon knows all that the first one did.
func TestLabelsAreTheState(t *testing.T) {
	b := newBed(t)
	s := b.open(b.config())
	s.layer("a", "", snapshots.WithLabels(map[string]string{"x": "y"}))
	s.layer("b", "a")
	_, err := s.Prepare(ctx, "c", "b", snapshots.WithLabels(map[string]string{"k": "v"}))
	s.ok(err)
	_, err = s.Update(ctx, snapshots.Info{Name: "a", Labels: map[string]string{"l": "m"}}, "labels.l")
	s.ok(err)
	again := b.open(s.Config)
	for _, key := range []string{"a", "b", "c"} {
		was, err := s.Stat(ctx, key)
		s.ok(err)
		is, err := again.Stat(ctx, key)
		s.ok(err)
		if fmt.Sprint(was) != fmt.Sprint(is) {
			t.Errorf("%s: %v, was %v", key, is, was)
		}
		uwas, err := s.Usage(ctx, key)
		s.ok(err)
		if uis, err := again.Usage(ctx, key); err != nil || uis != uwas {
			t.Errorf("%s: usage %v, was %v, %v", key, uis, uwas, err)
		}
	}
	again.has("b", "a", "b")
	if err := again.Remove(ctx, "a"); !errdefs.IsFailedPrecondition(err) {
		t.Error(err)
	}
}

// What is removed while somebody has it, mounted or as a virtual machine has its file, goes
// when he is done.
func TestRemovedWhileMounted(t *testing.T) {
	b := newBed(t)
	s := b.open(b.config())
	s.layer("a", "")
	ms, err := s.Prepare(ctx, "vm", "a", snapshots.WithLabels(map[string]string{offerLabel: string(File)}))
	s.ok(err)
	f, err := os.OpenFile(ms[0].Source, os.O_RDWR, 0)
	s.ok(err)
	s.ok(s.Remove(ctx, "vm"))
	_, err = f.WriteAt(make([]byte, 4096), 1<<20)
	s.ok(errors.Join(err, f.Sync()))
	s.nothingLeftBut(2)
	s.ok(f.Close())
	s.nothingLeftBut(1)
	_, err = s.Prepare(ctx, "c", "a")
	s.ok(err)
	s.mounted("c", func(dir string) {
		s.ok(s.Remove(ctx, "c"))
		s.ok(os.WriteFile(filepath.Join(dir, "still"), nil, 0o600))
		if keys := s.keys(); !slices.Equal(keys, []string{"a"}) {
			t.Error(keys)
		}
		again := b.open(s.Config)
		if keys := again.keys(); !slices.Equal(keys, []string{"a"}) {
			t.Error(keys)
		}
		s.ok(again.Close())
	})
	s.ok(s.Remove(ctx, "a"))
	s.nothingLeft()
}

// Several unpack the same image side by side: each layer is there once, whoever comes late
// finds it and takes his own away, and no key stays taken.
func TestSameImage(t *testing.T) {
	b := newBed(t)
	s := b.open(b.config())
	want := []string{"layer-0", "layer-1", "layer-2"}
	parent := ""
	for _, name := range want {
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				key := fmt.Sprint("extract-", i)
				_, err := s.Prepare(ctx, key, parent)
				if err == nil {
					err = s.Commit(ctx, name, key)
				}
				if errdefs.IsAlreadyExists(err) {
					err = s.Remove(ctx, key)
				}
				if err != nil {
					t.Errorf("%s, %s: %v", key, name, err)
				}
			})
		}
		all.Wait()
		parent = name
	}
	if keys := s.keys(); !slices.Equal(keys, want) {
		t.Errorf("there are %v", keys)
	}
	s.nothingLeftBut(len(want))
}

// What a container wrote is the host's again when its snapshot is removed, or when it
// removes the file.
func TestSpaceIsGivenBack(t *testing.T) {
	b := newBed(t)
	s := b.open(b.config())
	s.layer("a", "")
	_, err := s.Prepare(ctx, "c", "a")
	s.ok(err)
	data := filepath.Join(b.Root, "pools", "p", "p.data")
	const much = 64 << 20
	before := allocated(t, data)
	s.mounted("c", func(dir string) {
		for _, name := range []string{"f", "g"} {
			writeMuch(t, filepath.Join(dir, name), much)
		}
		if now := allocated(t, data); now < before+2*much {
			t.Errorf("%d bytes are allocated, %d before: the file has less than was written", now, before)
		}
		if u, err := s.Usage(ctx, "c"); err != nil || u.Size < 2*much {
			t.Errorf("%v, %v", u, err)
		}
		s.ok(os.Remove(filepath.Join(dir, "f")))
		unix.Sync() // the file system discards when its journal commits
		rig.Until(t, "the file's space is free", func() bool { return allocated(t, data) < before+much+much/2 })
	})
	s.ok(s.Remove(ctx, "c"))
	s.nothingLeftBut(1)
	rig.Until(t, "the snapshot's space is free", func() bool { return allocated(t, data) < before+much/8 })
}

func (s *snap) nothingLeftBut(n int) {
	s.b.t.Helper()
	rig.Until(s.b.t, "volumes are gone", func() bool { return len(s.b.Objects(s.b.t, s.Prefix+"-")) == n })
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func writeMuch(t *testing.T, path string, n int) {
	t.Helper()
	if err := fill(path, n); err != nil {
		t.Fatal(err)
	}
}

// fill writes a file that has no zeroes and syncs it.
func fill(path string, n int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	piece := []byte(strings.Repeat("0123456789abcdef", 1<<16))
	for ; n > 0 && err == nil; n -= len(piece) {
		_, err = f.Write(piece)
	}
	return errors.Join(err, f.Sync())
}

// A pool that is full at its maximum tells ENOSPC: to who writes, and to who prepares.
// Once something is removed everything goes on, without a repair.
func TestFullPool(t *testing.T) {
	b := newBed(t)
	c := b.config()
	c.Pool.First, c.Pool.Most = 128<<20, 256<<20
	s := b.open(c)
	s.layer("a", "")
	for _, key := range []string{"c", "d"} {
		_, err := s.Prepare(ctx, key, "a")
		s.ok(err)
	}
	s.mounted("d", func(dir string) { writeMuch(t, filepath.Join(dir, "kept"), 20<<20) })
	ms, err := s.Mounts(ctx, "c")
	s.ok(err)
	s.ok(mount.All(ms, s.dir))
	if err := fill(filepath.Join(s.dir, "f"), 400<<20); !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) {
		t.Errorf("writing to a full pool: %v", err)
	}
	if _, err := s.Prepare(ctx, "e", "a"); !errdefs.IsResourceExhausted(err) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("preparing in a full pool: %v", err)
	}
	s.ok(mount.UnmountAll(s.dir, 0))
	s.ok(s.Remove(ctx, "c"))
	s.nothingLeftBut(2)
	rig.Until(t, "the pool has room", func() bool { return s.pool.Room(ctx) == nil })
	_, err = s.Prepare(ctx, "e", "a")
	s.ok(err)
	s.mounted("e", func(dir string) { writeMuch(t, filepath.Join(dir, "f"), 50<<20) })
	s.mounted("d", func(dir string) {
		writeMuch(t, filepath.Join(dir, "more"), 20<<20)
		if text, err := os.ReadFile(filepath.Join(dir, "kept")); err != nil || len(text) != 20<<20 || !strings.HasSuffix(string(text), "abcdef") {
			t.Errorf("%d bytes, %v", len(text), err)
		}
	})
	s.has("a", "a")
}

// The pool grows before it is full, while it is written to. A snapshot ends at its size.
func TestPoolGrows(t *testing.T) {
	b := newBed(t)
	c := b.config()
	c.Pool.First, c.Pool.Most = 64<<20, 1<<30
	s := b.open(c)
	_, err := s.Prepare(ctx, "c", "")
	s.ok(err)
	s.mounted("c", func(dir string) { writeMuch(t, filepath.Join(dir, "f"), 300<<20) })
	c = b.config()
	c.Size = 64 << 20
	s = b.open(c)
	_, err = s.Prepare(ctx, "small", "")
	s.ok(err)
	s.mounted("small", func(dir string) {
		if err := fill(filepath.Join(dir, "f"), int(c.Size)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("writing more than a snapshot has: %v", err)
		}
	})
}

// A pool's metadata grow before they are full, also while nobody asks for a snapshot, and
// all that there are are written in one burst, each at the cost of a block of metadata.
func TestMetadataGrow(t *testing.T) {
	b := newBed(t)
	c := b.config()
	s := b.open(c)
	const first, many = 128, 160 // blocks of metadata; volumes, of which each write takes one
	s.ok(b.Client.CreatePool(ctx, volume.PoolSpec{Name: "p", Size: 1 << 30, Metadata: first * pdata.BlockSize}))
	s.ok(b.Client.CreateVolume(ctx, volume.VolumeSpec{Pool: "p", Name: "v", Size: 1 << 20}))
	var names []string
	for i := range many {
		names = append(names, fmt.Sprint("w", i))
	}
	s.ok(b.Client.Snapshot(ctx, volume.SnapshotSpec{Of: "v", Names: names}))
	for _, name := range names {
		path, err := s.file(ctx, name)
		s.ok(err)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		s.ok(err)
		_, err = f.Write(make([]byte, 64<<10))
		s.ok(errors.Join(err, f.Sync(), f.Close()))
	}
	d, err := b.Client.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: "p"}, With: []ctl.With{ctl.WithStatus}})
	s.ok(err)
	st, err := thin.ParsePoolStatus(d.Status[0].Params)
	if s.ok(err); st.UsedMetadata < first || st.TotalMetadata < 2*first || st.Mode != thin.ReadWrite {
		t.Errorf("the pool has become %v", st)
	}
}

// What a snapshot is mounted from is what was asked for, by flag or by label.
func TestOffers(t *testing.T) {
	b := newBed(t)
	c := b.config()
	for offer, check := range map[Offer]func(m mount.Mount) error{
		Loop: func(m mount.Mount) error { return isFile(m, true) },
		File: func(m mount.Mount) error { return isFile(m, false) },
		Block: func(m mount.Mount) error {
			if st, err := os.Stat(m.Source); err != nil || st.Mode()&fs.ModeDevice == 0 {
				return fmt.Errorf("no block device: %v", err)
			}
			return nil
		},
		VhostUser: func(m mount.Mount) error {
			if st, err := os.Stat(m.Source); err != nil || st.Mode()&fs.ModeSocket == 0 {
				return fmt.Errorf("no socket: %v", err)
			}
			return nil
		},
	} {
		t.Run(string(offer), func(t *testing.T) {
			s := b.open(c)
			ms, err := s.Prepare(ctx, "c", "", snapshots.WithLabels(map[string]string{offerLabel: string(offer), fsLabel: "xfs"}))
			s.ok(err)
			if err := check(ms[0]); err != nil || len(ms) != 1 || ms[0].Type != "xfs" {
				t.Errorf("%v: %v", ms, err)
			}
			if offer == Loop || offer == Block {
				_, err = s.Prepare(ctx, "d", "", snapshots.WithLabels(map[string]string{fsLabel: "xfs"}))
				s.ok(err)
				s.mounted("c", func(dir string) {
					s.ok(os.WriteFile(filepath.Join(dir, "c"), []byte("c"), 0o600))
					ms, err := s.Mounts(ctx, "d") // which has the same id
					s.ok(err)
					s.ok(mount.WithTempMount(ctx, ms, func(string) error { return nil }))
				})
				s.ok(s.Remove(ctx, "d"))
				s.ok(s.Commit(ctx, "l", "c"))
				s.has("l", "c")
				s.ok(s.Remove(ctx, "l"))
			} else {
				s.ok(s.Remove(ctx, "c"))
			}
			s.nothingLeft()
			as, err := b.Client.Attachments(ctx)
			xs, xerr := b.Client.Exported(ctx)
			if s.ok(errors.Join(err, xerr)); len(as)+len(xs) > 0 {
				t.Errorf("%v, %v are left", as, xs)
			}
		})
	}
	s := b.open(c)
	if _, err := s.Prepare(ctx, "c", "", snapshots.WithLabels(map[string]string{offerLabel: "none"})); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

func isFile(m mount.Mount, loop bool) error {
	st, err := os.Stat(m.Source)
	if err != nil || !st.Mode().IsRegular() || slices.Contains(m.Options, "loop") != loop {
		return fmt.Errorf("%v: %v", m, err)
	}
	return nil
}

// A snapshot that is committed while it is mounted is what it was at that moment.
func TestCommittedWhileMounted(t *testing.T) {
	b := newBed(t)
	s := b.open(b.config())
	_, err := s.Prepare(ctx, "c", "")
	s.ok(err)
	s.mounted("c", func(dir string) {
		writeSynced(t, filepath.Join(dir, "c"), "c")
		s.ok(s.Commit(ctx, "l", "c"))
	})
	s.has("l", "c")
}

func writeSynced(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What somebody did to volumes and pool by hand is told and does no harm: a snapshot whose
// volume was removed is gone, a pool that was renamed is missed until it has its name.
func TestChangedByHand(t *testing.T) {
	b := newBed(t)
	s := b.open(b.config())
	s.layer("a", "")
	s.layer("b", "a")
	r, err := s.index.find(ctx, "b")
	s.ok(err)
	s.ok(b.Client.RemoveObject(ctx, volume.RemoveSpec{Name: r.volume}))
	if _, err := s.Prepare(ctx, "c", "b"); err == nil {
		t.Error("a snapshot of a removed volume was prepared")
	}
	if _, err := s.Stat(ctx, "b"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	s.layer("b", "a")
	s.has("b", "a", "b")
	s.ok(b.Client.RenameObject(ctx, ctl.RenameObject{Name: "p", NewName: "q"}))
	if _, err := s.Prepare(ctx, "c", "b"); err == nil {
		t.Error("a snapshot was prepared in another pool")
	}
	s.ok(b.Client.RenameObject(ctx, ctl.RenameObject{Name: "q", NewName: "p"}))
	_, err = s.Prepare(ctx, "c", "b") // nothing is left of those that failed
	s.ok(err)
	s.has("b", "a", "b")
}
