package s3_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"udm/archive"
	"udm/archive/s3"
	"udm/archive/s3/s3test"
)

var real = flag.String("s3", "", "http://HOST:PORT/BUCKET of a server to test with, whose keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, instead of one in this process")

// start starts a proxy before a server, and returns a store behind it.
func start(t *testing.T) (*s3test.Proxy, func(prefix string) archive.Store) {
	t.Helper()
	p := &s3test.Proxy{}
	name := "bucket"
	if *real == "" {
		t.Setenv("AWS_ACCESS_KEY_ID", "key")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
		s := httptest.NewServer(&s3test.Bucket{})
		t.Cleanup(s.Close)
		p.To = s.URL
	} else {
		u, err := url.Parse(*real)
		if err != nil {
			t.Fatal(err)
		}
		p.To, name = u.Scheme+"://"+u.Host, strings.Trim(u.Path, "/")
	}
	front := httptest.NewServer(p)
	t.Cleanup(front.Close)
	return p, func(prefix string) archive.Store {
		s, err := s3.Open(t.Context(), strings.Replace(front.URL, "http://", "s3+http://", 1)+"/"+name+"/"+prefix)
		if err != nil {
			t.Fatal(err)
		}
		return archive.Retry(s, func(context.Context, time.Duration) error { return nil })
	}
}

// TestStore: what a store must do.
func TestStore(t *testing.T) {
	_, open := start(t)
	s, ctx := open(fmt.Sprint("store", rand.Uint64())), t.Context()
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

// TestEachRequest does harm to each request of a session once. What is late arrives when the
// session has ended, and changes nothing.
func TestEachRequest(t *testing.T) {
	p, open := start(t)
	first, second := generations()
	run, step := rand.Uint64(), 1
	if testing.Short() {
		step = 5
	}
	for harm := range s3test.NumHarms {
		for at, more := 1+int(harm)%step, true; more; at += step {
			p.Begin(func(n int) s3test.Harm {
				if n == at {
					return harm
				}
				return s3test.None
			}, nil)
			s := open(fmt.Sprintf("s%d-%d-%d", run, harm, at))
			if err := session(t.Context(), s, first, second); err != nil {
				t.Fatalf("harm %d to request %d: %v", harm, at, err)
			}
			if more = harm != s3test.None && p.Requests() >= at; !more {
				t.Logf("harm %d: %d requests", harm, p.Requests())
			}
			p.Deliver()
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

// TestPruneBesideBackup prunes again and again while a backup runs.
func TestPruneBesideBackup(t *testing.T) {
	p, open := start(t)
	first, second := generations()
	s, ctx := open(fmt.Sprint("beside", rand.Uint64())), t.Context()
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
	p.Begin(func(int) s3test.Harm {
		if !busy.Swap(true) {
			if r, err := other.Prune(ctx); err != nil || r.Packs > 0 {
				t.Errorf("%+v, %v", r, err)
			}
			busy.Store(false)
		}
		return s3test.None
	}, nil)
	disk := bytes.Clone(second)
	for i := range 4 {
		copy(disk[i<<10:], second[i<<11:][:700])
		if _, err := backup(ctx, a, fmt.Sprint("more", i), "", disk, 0); err != nil {
			t.Fatal(err)
		}
	}
	p.Begin(nil, nil)
	v, err := a.Verify(ctx, nil, nil)
	if err != nil || v.Snapshots != 5 || len(v.Damaged) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
}
