package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"udm/archive"
	"udm/archive/s3"
)

// TestServer tests stores and archives in a bucket of a server, whose keys are in the
// environment. Each request of a session is done harm to once: of all, or with -short of some.
func TestServer(t *testing.T, server, bucket string) {
	r := &rig{proxy: &Proxy{To: server}}
	front := httptest.NewServer(r.proxy)
	t.Cleanup(front.Close)
	r.bucket = strings.Replace(front.URL, "http://", "s3+http://", 1) + "/" + bucket
	t.Run("store", r.store)
	t.Run("each request", r.eachRequest)
	t.Run("prune beside backup", r.pruneBesideBackup)
}

// rig is a bucket behind a proxy.
type rig struct {
	proxy  *Proxy
	bucket string
}

// open opens the store at a prefix.
func (r *rig) open(t *testing.T, prefix string) archive.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), r.bucket+"/"+prefix)
	if err != nil {
		t.Fatal(err)
	}
	return archive.Retry(s, func(context.Context, time.Duration) error { return nil })
}

// store is what a store must do.
func (r *rig) store(t *testing.T) {
	s, ctx := r.open(t, fmt.Sprint("store", rand.Uint64())), t.Context()
	if _, err := s.Get(ctx, "a/b", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an object that there is not: %v", err)
	}
	if err := s.PutNew(ctx, "a/b", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	if err := s.PutNew(ctx, "a/b", []byte("other")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put new again: %v", err)
	}
	if err := errors.Join(s.Put(ctx, "a/c", []byte("one")), s.Put(ctx, "a/c", []byte("two")), s.Put(ctx, "b", nil)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key       string
		offset, n int64
		want      string
	}{{"a/b", 0, -1, "0123456789"}, {"a/b", 3, 4, "3456"}, {"a/b", 7, -1, "789"}, {"a/c", 0, -1, "two"}, {"a/b", 9, 1, "9"}} {
		if p, err := s.Get(ctx, c.key, c.offset, c.n); err != nil || string(p) != c.want {
			t.Errorf("%+v: %q, %v", c, p, err)
		}
	}
	if _, err := s.Get(ctx, "a/b", 8, 5); err == nil {
		t.Error("more was read than there is")
	}
	var keys []string
	list := func(key string, size int64) error { keys = append(keys, fmt.Sprint(key, size)); return nil }
	if err := s.List(ctx, "a/", list); err != nil || !slices.Equal(keys, []string{"a/b10", "a/c3"}) {
		t.Errorf("list %v, %v", keys, err)
	}
	if err := errors.Join(s.Delete(ctx, "a/b"), s.Delete(ctx, "a/b")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"s3://host", "http://host/bucket", "s3://user:pass@host/bucket", "s3:///b"} {
		if _, err := s3.Open(ctx, name); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// session archives two generations, removes one, prunes, and restores.
func session(ctx context.Context, s archive.Store, first, second []byte) error {
	if err := archive.Init(ctx, s, nil); err != nil {
		return err
	}
	a, err := archive.Open(ctx, s, nil)
	if err != nil {
		return err
	}
	info, err := backup(ctx, a, "first", "", first, 0)
	if err == nil {
		_, err = backup(ctx, a, "second", info.ID, second, len(second)/2)
	}
	if err == nil {
		err = a.Remove(ctx, "first")
	}
	if err == nil {
		_, err = a.Prune(ctx)
	}
	return errors.Join(err, restore(ctx, a, second))
}

// restore sees what the second generation holds.
func restore(ctx context.Context, a *archive.Archive, second []byte) error {
	x, err := a.Snapshot(ctx, "second", nil)
	if err != nil {
		return err
	}
	got := make(buffer, len(second))
	if err := x.Restore(ctx, got, nil); err != nil {
		return err
	}
	if !bytes.Equal(got, second) {
		return errors.New("something else was restored")
	}
	return nil
}

type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }

func backup(ctx context.Context, a *archive.Archive, name, base string, disk []byte, from int) (archive.Info, error) {
	b, err := a.Begin(ctx, archive.BackupOptions{Name: name, Size: uint64(len(disk)), Base: base})
	if err != nil {
		return archive.Info{}, err
	}
	if err := b.Data(uint64(from), disk[from:]); err != nil {
		return archive.Info{}, errors.Join(err, b.Abort())
	}
	return b.Commit("")
}

// generations are two contents of a disk.
func generations() (first, second []byte) {
	rng := rand.New(rand.NewPCG(1, 1))
	first = make([]byte, 1<<16)
	for i := range first {
		first[i] = byte(rng.Uint32())
	}
	second = bytes.Clone(first)
	copy(second[1<<15:], first[:1000])
	return first, second
}

// eachRequest does harm to each request of a session once. What is late arrives when the
// session has ended, and changes nothing.
func (r *rig) eachRequest(t *testing.T) {
	first, second := generations()
	run, step := rand.Uint64(), 1
	if testing.Short() {
		step = 5
	}
	for harm := range NumHarms {
		for at, more := 1+int(harm)%step, true; more; at += step {
			r.proxy.Begin(func(n int) Harm {
				if n == at {
					return harm
				}
				return None
			}, nil)
			s := r.open(t, fmt.Sprintf("s%d-%d-%d", run, harm, at))
			if err := session(t.Context(), s, first, second); err != nil {
				t.Fatalf("harm %d to request %d: %v", harm, at, err)
			}
			if more = harm != None && r.proxy.Requests() >= at; !more {
				t.Logf("harm %d: %d requests", harm, r.proxy.Requests())
			}
			r.proxy.Deliver()
			if err := onlySecond(t.Context(), s, second); err != nil {
				t.Fatalf("harm %d to request %d, at the end: %v", harm, at, err)
			}
		}
	}
}

// onlySecond sees that the archive has the second generation, and no other.
func onlySecond(ctx context.Context, s archive.Store, second []byte) error {
	a, err := archive.Open(ctx, s, nil)
	if err != nil {
		return err
	}
	list, err := a.List(ctx)
	if err == nil && (len(list) != 1 || list[0].Name != "second") {
		err = fmt.Errorf("it has %+v", list)
	}
	return errors.Join(err, restore(ctx, a, second))
}

// pruneBesideBackup prunes again and again while a backup runs.
func (r *rig) pruneBesideBackup(t *testing.T) {
	first, second := generations()
	s, ctx := r.open(t, fmt.Sprint("beside", rand.Uint64())), t.Context()
	if err := session(ctx, s, first, second); err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(ctx, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := archive.Open(ctx, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	var busy atomic.Bool // with the prune's own requests
	r.proxy.Begin(func(int) Harm {
		if !busy.Swap(true) {
			if done, err := other.Prune(ctx); err != nil || done.Packs > 0 {
				t.Errorf("%+v, %v", done, err)
			}
			busy.Store(false)
		}
		return None
	}, nil)
	disk := bytes.Clone(second)
	for i := range 4 {
		copy(disk[i<<10:], second[i<<11:][:700])
		if _, err := backup(ctx, a, fmt.Sprint("more", i), "", disk, 0); err != nil {
			t.Fatal(err)
		}
	}
	r.proxy.Begin(nil, nil)
	v, err := a.Verify(ctx, nil, nil)
	if err != nil || v.Snapshots != 5 || len(v.Damaged) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
}
