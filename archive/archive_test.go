package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a store in memory that can fail.
type memory struct {
	mu      sync.Mutex
	objects map[string][]byte
	calls   int
	// fault is asked at each call that changes or reads something: whether it fails, before
	// or after it was carried out.
	fault func(call int, what, key string) (before, after error)
}

func newMemory() *memory { return &memory{objects: map[string][]byte{}} }

func (m *memory) clone() *memory {
	c := newMemory()
	for k, v := range m.objects {
		c.objects[k] = v
	}
	return c
}

func (m *memory) do(what, key string, f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	var before, after error
	if m.fault != nil {
		before, after = m.fault(m.calls, what, key)
	}
	if before != nil {
		return before
	}
	if err := f(); err != nil {
		return err
	}
	return after
}

func (m *memory) PutNew(_ context.Context, key string, p []byte) error {
	return m.do("new", key, func() error {
		if _, ok := m.objects[key]; ok {
			return fs.ErrExist
		}
		m.objects[key] = bytes.Clone(p)
		return nil
	})
}

func (m *memory) Put(_ context.Context, key string, p []byte) error {
	return m.do("put", key, func() error { m.objects[key] = bytes.Clone(p); return nil })
}

func (m *memory) Get(_ context.Context, key string, off, n int64) (p []byte, err error) {
	err = m.do("get", key, func() error {
		o, ok := m.objects[key]
		if !ok {
			return fs.ErrNotExist
		}
		if n < 0 {
			n = int64(len(o)) - off
		}
		if off < 0 || off+n > int64(len(o)) {
			return io.ErrUnexpectedEOF
		}
		p = bytes.Clone(o[off : off+n])
		return nil
	})
	return p, err
}

func (m *memory) List(_ context.Context, prefix string, fn func(string, int64) error) error {
	found := map[string]int64{}
	err := m.do("list", prefix, func() error {
		for k, o := range m.objects {
			if strings.HasPrefix(k, prefix) {
				found[k] = int64(len(o))
			}
		}
		return nil
	})
	for k, n := range found {
		if err == nil {
			err = fn(k, n)
		}
	}
	return err
}

func (m *memory) Delete(_ context.Context, key string) error {
	return m.do("delete", key, func() error { delete(m.objects, key); return nil })
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func open(t testing.TB, s Store, key []byte) *Archive {
	t.Helper()
	a, err := Open(t.Context(), s, key)
	ok(t, err)
	return a
}

// change is a part of a disk that is written, or zeroed.
type change struct {
	offset uint64
	p      []byte // nil: zeroes
	length uint64
}

// random changes a disk at random places, and returns the changes in order.
func random(rng *rand.Rand, disk []byte, n int) (list []change) {
	for at := uint64(0); n > 0; n-- {
		at += rng.Uint64N(uint64(len(disk))/8) / sector * sector
		length := (1 + rng.Uint64N(400)) * sector
		if at+length > uint64(len(disk)) {
			break
		}
		c := change{at, nil, length}
		if rng.IntN(4) > 0 {
			c.p = make([]byte, length)
			for i := range c.p {
				c.p[i] = byte(rng.Uint32() & 15)
			}
			copy(disk[at:], c.p)
		} else {
			clear(disk[at : at+length])
		}
		list = append(list, c)
		at += length
	}
	return list
}

// backup archives changes of a base.
func backup(ctx context.Context, a *Archive, name, base string, size int, list []change) (Info, error) {
	b, err := a.Begin(ctx, BackupOptions{Name: name, Size: uint64(size), Base: base})
	if err != nil {
		return Info{}, err
	}
	for _, c := range list {
		if c.p != nil {
			err = b.Data(c.offset, c.p)
		} else {
			err = b.Zero(c.offset, c.length)
		}
		if err != nil {
			return Info{}, errors.Join(err, b.Abort())
		}
	}
	return b.Commit("")
}

// equal checks that a snapshot is as a disk was.
func equal(t testing.TB, a *Archive, name string, disk []byte) {
	t.Helper()
	s, err := a.Snapshot(t.Context(), name, nil)
	ok(t, err)
	got := make([]byte, len(disk))
	ok(t, s.Restore(t.Context(), sliceWriter(got), nil))
	if !bytes.Equal(got, disk) {
		t.Fatalf("snapshot %s is another one", name)
	}
}

type sliceWriter []byte

func (w sliceWriter) WriteAt(p []byte, off int64) (int, error) { return copy(w[off:], p), nil }

// TestGenerations archives many generations of a disk, each with what has changed, removes
// some, prunes, and restores the others.
func TestGenerations(t *testing.T) {
	for name, key := range map[string][]byte{"plain": nil, "encrypted": must(ParseKey(NewKey()))} {
		t.Run(name, func(t *testing.T) {
			dir := must(OpenDir(t.TempDir()))
			ok(t, Init(t.Context(), dir, key))
			a := open(t, dir, key)
			rng := rand.New(rand.NewPCG(1, 2))
			disk := make([]byte, 9<<20+4096)
			var disks [][]byte
			base := ""
			for i := range 12 {
				if i == 6 {
					disk = disk[:8<<20+512] // it becomes smaller
				}
				list := random(rng, disk, 10)
				if i == 9 {
					base, list = "", []change{{0, bytes.Clone(disk), uint64(len(disk))}}
				}
				info, err := backup(t.Context(), a, fmt.Sprint("gen", i), base, len(disk), list)
				ok(t, err)
				base = info.ID
				disks = append(disks, bytes.Clone(disk))
			}
			for i := 0; i < 12; i += 2 {
				ok(t, a.Remove(t.Context(), fmt.Sprint("gen", i)))
			}
			p := must(a.Prune(t.Context()))
			t.Logf("%+v", p)
			for i := 1; i < 12; i += 2 {
				equal(t, a, fmt.Sprint("gen", i), disks[i])
			}
			v := must(a.Verify(t.Context(), nil, nil))
			if v.Snapshots != 6 || len(v.Damaged) > 0 || v.Chunks == 0 {
				t.Errorf("verify: %+v", v)
			}
			if list := must(a.List(t.Context())); len(list) != 6 || list[0].Name != "gen1" {
				t.Errorf("list: %+v", list)
			}
		})
	}
}

// TestPieces rewrites parts of one chunk's range until it is stored anew.
func TestPieces(t *testing.T) {
	m := newMemory()
	ok(t, Init(t.Context(), m, nil))
	a := open(t, m, nil)
	disk := make([]byte, 2<<20)
	rng := rand.New(rand.NewPCG(3, 4))
	base := must(backup(t.Context(), a, "0", "", len(disk), []change{{0, bytes.Repeat([]byte{7}, len(disk)), uint64(len(disk))}}))
	for i := range disk {
		disk[i] = 7
	}
	most := 0
	for i := range 24 {
		var list []change
		for at := uint64(0); at < 1<<20; at += 1 << 17 {
			at := at + rng.Uint64N(200)*512
			c := change{at, bytes.Repeat([]byte{byte(rng.Uint32())}, 512), 512}
			list = append(list, c)
			copy(disk[at:], c.p)
		}
		base = must(backup(t.Context(), a, fmt.Sprint(i+1), base.ID, len(disk), list))
		x := must(a.index(t.Context(), base.ID))
		most = max(most, len(x.extents))
		equal(t, a, base.ID, disk)
	}
	if most < maxPieces/2 || most > 2*maxPieces+2 {
		t.Errorf("up to %d extents", most)
	}
}

// TestEachRequest lets each request of a backup, a removal and a prune fail in turn, before
// and after it is carried out, once or from then on (as when the program is killed), and
// sees that every snapshot that was there is there as it was, the new one as a whole or not
// at all, and that the next prune leaves nothing behind.
func TestEachRequest(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	start := newMemory()
	ok(t, Init(t.Context(), start, nil))
	disk := make([]byte, 3<<20)
	a := open(t, start, nil)
	first := must(backup(t.Context(), a, "first", "", len(disk), random(rng, disk, 6)))
	old := bytes.Clone(disk)
	must(backup(t.Context(), a, "gone", first.ID, len(disk), random(rng, bytes.Clone(disk), 6)))
	list := random(rng, disk, 6)
	fault := errors.New("unplugged")
	for _, kill := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			for call := 1; ; call++ {
				m := start.clone()
				hit := false
				m.fault = func(n int, what, key string) (error, error) {
					if n == call || kill && n > call {
						hit = true
						if after && n == call {
							return nil, fault
						}
						return fault, nil
					}
					return nil, nil
				}
				s := Retry(m, func(context.Context, time.Duration) error { return nil })
				a, err := Open(t.Context(), s, nil)
				var berr, perr error
				if err == nil {
					_, berr = backup(t.Context(), a, "second", first.ID, len(disk), list)
					perr = errors.Join(a.Remove(t.Context(), "gone"))
					if perr == nil {
						_, perr = a.Prune(t.Context())
					}
				}
				if !kill && (err != nil || berr != nil || perr != nil) {
					t.Fatalf("call %d failed once: %v, %v, %v", call, err, berr, perr)
				}
				m.fault = nil
				a = open(t, m, nil)
				equal(t, a, "first", old)
				if _, err := a.find(t.Context(), "second"); err == nil {
					equal(t, a, "second", disk)
				} else if err == nil && berr == nil {
					t.Fatalf("call %d: the backup went well and is not there", call)
				}
				a.now = func() time.Time { return time.Now().Add(2 * lifetime) }
				if r, err := a.Prune(t.Context()); err != nil || r.Active > 0 {
					t.Fatalf("call %d: %+v, %v", call, r, err)
				}
				equal(t, a, "first", old)
				if v := must(a.Verify(t.Context(), nil, nil)); len(v.Damaged) > 0 {
					t.Fatalf("call %d: %v", call, v.Damaged)
				}
				tidy(t, a, m)
				if !hit {
					t.Logf("kill %t, after %t: %d requests", kill, after, call-1)
					break
				}
			}
		}
	}
}

// tidy sees that a store has nothing that no snapshot needs.
func tidy(t *testing.T, a *Archive, m *memory) {
	t.Helper()
	needed := map[string]bool{configKey: true}
	ok(t, a.each(t.Context(), nil, func(x *index) error {
		for _, p := range x.packs {
			needed[packs+p] = true
		}
		return nil
	}))
	for k := range m.objects {
		if !needed[k] && !strings.HasPrefix(k, snapshots) {
			t.Errorf("%s is left", k)
		}
	}
}

// TestPruneBesideBackup prunes before each request of a backup: what it needs stays.
func TestPruneBesideBackup(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	disk := make([]byte, 3<<20)
	start := newMemory()
	ok(t, Init(t.Context(), start, nil))
	base := must(backup(t.Context(), open(t, start, nil), "base", "", len(disk), random(rng, disk, 6)))
	list := random(rng, disk, 6)
	for _, dead := range []bool{false, true} {
		for call, more := 1, true; more; call++ {
			m := start.clone()
			a := open(t, m, nil)
			other := open(t, m, nil)
			if dead {
				other.now = func() time.Time { return time.Now().Add(2 * lifetime) }
			}
			n := 0
			more = false
			hook := &hooked{m, func() {
				if n++; n == call {
					more = true
					if r, err := other.Prune(t.Context()); err != nil || r.Bytes > 0 && !dead {
						t.Errorf("prune before call %d: %+v, %v", call, r, err)
					}
					if err := other.Remove(t.Context(), "base"); err == nil && call > 1 && !dead {
						t.Error("the base of a running backup was removed")
					}
				}
			}}
			a.store = hook
			_, err := backup(t.Context(), a, "second", base.ID, len(disk), list)
			if err == nil {
				equal(t, open(t, m, nil), "second", disk)
			} else if !dead && !strings.Contains(err.Error(), "base") {
				t.Errorf("prune before call %d: %v", call, err)
			}
			if dead {
				must(other.Prune(t.Context()))
				tidy(t, other, m)
			}
		}
	}
}

// hooked calls a function before each request.
type hooked struct {
	Store
	hook func()
}

func (h *hooked) PutNew(ctx context.Context, key string, p []byte) error {
	h.hook()
	return h.Store.PutNew(ctx, key, p)
}

func (h *hooked) Put(ctx context.Context, key string, p []byte) error {
	h.hook()
	return h.Store.Put(ctx, key, p)
}

func (h *hooked) Get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	h.hook()
	return h.Store.Get(ctx, key, off, n)
}

func (h *hooked) Delete(ctx context.Context, key string) error {
	h.hook()
	return h.Store.Delete(ctx, key)
}

// TestFlips: a snapshot of whose objects any byte is another one is not restored as
// something else.
func TestFlips(t *testing.T) {
	for name, key := range map[string][]byte{"plain": nil, "encrypted": must(ParseKey(NewKey()))} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			ok(t, Init(t.Context(), m, key))
			a := open(t, m, key)
			rng := rand.New(rand.NewPCG(9, 9))
			disk := make([]byte, 1<<19)
			must(backup(t.Context(), a, "secret-name", "", len(disk), []change{{4096, bytes.Repeat([]byte("secret"), 512), 3072}}))
			copy(disk[4096:], bytes.Repeat([]byte("secret"), 512))
			for k, o := range m.objects {
				if key != nil && bytes.Contains(o, []byte("secret")) {
					t.Errorf("%s tells a secret", k)
				}
				if k == configKey {
					continue
				}
				for range 40 {
					p := bytes.Clone(o)
					p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
					m.objects[k] = p
					s, err := a.Snapshot(t.Context(), "secret-name", nil)
					got := make([]byte, len(disk))
					if err == nil {
						err = s.Restore(t.Context(), sliceWriter(got), nil)
					}
					if err == nil && !bytes.Equal(got, disk) {
						t.Fatalf("a flip in %s was not seen", k)
					}
				}
				m.objects[k] = o
			}
		})
	}
}

func TestKeys(t *testing.T) {
	m := newMemory()
	key := must(ParseKey(NewKey()))
	if _, err := Open(t.Context(), m, nil); err == nil {
		t.Error("there is an archive in an empty store")
	}
	ok(t, Init(t.Context(), m, key))
	for _, k := range [][]byte{nil, must(ParseKey(NewKey()))} {
		if _, err := Open(t.Context(), m, k); err == nil {
			t.Error("a wrong key opens the archive")
		}
	}
	if Init(t.Context(), m, key) == nil {
		t.Error("an archive was made twice")
	}
	if _, err := ParseKey([]byte("xyz")); err == nil {
		t.Error("a wrong key file is taken")
	}
}

// FuzzIndex decodes anything: what is taken is sound.
func FuzzIndex(f *testing.F) {
	c := must(newCodec(nil, nil))
	x := &index{Info: Info{ID: "aaaaaaaaaaaaaaaa", Size: 1 << 20}, packs: []string{"a/0"}, chunks: []location{{offset: 1, length: 2}}, extents: []extent{{0, 8, 0, 0}}}
	f.Add(must(x.encode(c)))
	f.Add([]byte(abortMark))
	f.Fuzz(func(t *testing.T, p []byte) {
		if x, err := decode(c, "aaaaaaaaaaaaaaaa", p); err == nil && !x.sound() {
			t.Error("an unsound index is taken")
		}
	})
}
