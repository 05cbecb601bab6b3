package archive

import (
	"bytes"
	"cmp"
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
	harm    func(call int) harm // what happens to a request; nil: nothing
	late    []func() error      // requests that are on their way
}

// harm is what happens to a request.
type harm int

const (
	none   harm = iota
	before      // it fails
	after       // it is carried out, and fails
	twice       // it is carried out twice, and answered as the second time
	late        // it fails, and is carried out by deliver
)

var errHarm = errors.New("unplugged")

func newMemory() *memory { return &memory{objects: map[string][]byte{}} }

func (m *memory) clone() *memory {
	c := newMemory()
	for k, v := range m.objects {
		c.objects[k] = v
	}
	return c
}

func (m *memory) do(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	h := none
	if m.harm != nil {
		h = m.harm(m.calls)
	}
	switch h {
	case before:
		return errHarm
	case after:
		return cmp.Or(f(), errHarm)
	case twice:
		_ = f() // nobody sees this answer
	case late:
		m.late = append(m.late, f)
		return errHarm
	}
	return f()
}

// deliver carries out what is late.
func (m *memory) deliver() {
	for _, f := range m.late {
		_ = f() // nobody sees the answer
	}
	m.late = nil
}

func (m *memory) PutNew(_ context.Context, key string, p []byte) error {
	return m.do(func() error {
		if _, ok := m.objects[key]; ok {
			return fs.ErrExist
		}
		m.objects[key] = bytes.Clone(p)
		return nil
	})
}

func (m *memory) Put(_ context.Context, key string, p []byte) error {
	return m.do(func() error { m.objects[key] = bytes.Clone(p); return nil })
}

func (m *memory) Get(_ context.Context, key string, off, n int64) (p []byte, err error) {
	err = m.do(func() error {
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
	err := m.do(func() error {
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
	return m.do(func() error { delete(m.objects, key); return nil })
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
		x := filled(t, a, must(a.index(t.Context(), base.ID)))
		most = max(most, len(x.extents))
		equal(t, a, base.ID, disk)
	}
	if most < maxPieces/2 || most > 2*maxPieces+2 {
		t.Errorf("up to %d extents", most)
	}
}

// TestEachRequest does harm to each request of a backup, a removal, a prune and a restore in
// turn, and sees that every snapshot that was there is there as it was, the new one as a
// whole or not at all, that what is removed stays so, and that the next prune leaves nothing
// behind.
func TestEachRequest(t *testing.T) {
	r, step := newRequests(t), 1
	if testing.Short() {
		step = 5
	}
	for i, c := range []struct {
		name     string
		harm     harm
		killed   bool // nothing is requested after it
		veryLate bool // what is late arrives when all is removed
	}{
		{name: "fails", harm: before}, {name: "fails, carried out", harm: after},
		{name: "killed", harm: before, killed: true}, {name: "killed, carried out", harm: after, killed: true},
		{name: "twice", harm: twice}, {name: "late", harm: late}, {name: "very late", harm: late, veryLate: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for call, hit := 1+i%step, true; hit; call += step {
				hit = false
				m := r.start.clone()
				m.harm = func(n int) harm {
					switch {
					case n == call:
						hit = true
						return c.harm
					case c.killed && n > call:
						return before
					}
					return none
				}
				berr, err := r.session(t, m)
				if !c.killed && (berr != nil || err != nil) {
					t.Fatalf("request %d: %v, %v", call, berr, err)
				}
				m.harm = nil
				if !c.veryLate {
					m.deliver()
				}
				r.check(t, m, berr == nil)
				m.deliver()
				r.checkEnd(t, m)
				if t.Failed() {
					t.Fatalf("request %d", call)
				}
				if !hit {
					t.Logf("%d requests", call-1)
				}
			}
		})
	}
}

// requests is an archive with two snapshots, and what a third one has changed.
type requests struct {
	start     *memory
	first     Info
	list      []change
	old, disk []byte
}

func newRequests(t *testing.T) *requests {
	rng := rand.New(rand.NewPCG(5, 6))
	r := &requests{start: newMemory(), disk: make([]byte, 3<<20)}
	ok(t, Init(t.Context(), r.start, nil))
	a := open(t, r.start, nil)
	r.first = must(backup(t.Context(), a, "first", "", len(r.disk), random(rng, r.disk, 6)))
	r.old = bytes.Clone(r.disk)
	must(backup(t.Context(), a, "gone", r.first.ID, len(r.disk), random(rng, bytes.Clone(r.disk), 6)))
	r.list = random(rng, r.disk, 6)
	return r
}

// session backs up, removes, prunes and restores; the first error is that of the backup.
func (r *requests) session(t *testing.T, m *memory) (berr, err error) {
	ctx := t.Context()
	a, err := Open(ctx, Retry(m, func(context.Context, time.Duration) error { return nil }), nil)
	if err != nil {
		return err, err
	}
	_, berr = backup(ctx, a, "second", r.first.ID, len(r.disk), r.list)
	if err = a.Remove(ctx, "gone"); err == nil {
		_, err = a.Prune(ctx)
	}
	s, serr := a.Snapshot(ctx, "first", nil)
	if serr == nil {
		got := make([]byte, len(r.old))
		if serr = s.Restore(ctx, sliceWriter(got), nil); serr == nil && !bytes.Equal(got, r.old) {
			t.Error("something else was restored")
		}
	}
	return berr, errors.Join(err, serr)
}

// check sees what is there after a session, and when a prune has ended what died in it.
func (r *requests) check(t *testing.T, m *memory, made bool) {
	t.Helper()
	a := open(t, m, nil)
	a.now = func() time.Time { return time.Now().Add(2 * lifetime) }
	for range 2 {
		equal(t, a, "first", r.old)
		if _, err := a.find(t.Context(), "second"); err == nil {
			equal(t, a, "second", r.disk)
		} else if made {
			t.Fatal("the backup went well and is not there")
		}
		if p, err := a.Prune(t.Context()); err != nil || p.Active > 0 {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if v := must(a.Verify(t.Context(), nil, nil)); len(v.Damaged) > 0 {
		t.Fatal(v.Damaged)
	}
	tidy(t, a, m)
	_ = a.Remove(t.Context(), "second") // if it is there
	must(a.Prune(t.Context()))
}

// checkEnd sees that one snapshot is left, and nothing else.
func (r *requests) checkEnd(t *testing.T, m *memory) {
	t.Helper()
	a := open(t, m, nil)
	a.now = func() time.Time { return time.Now().Add(4 * lifetime) }
	must(a.Prune(t.Context()))
	for _, i := range must(a.List(t.Context())) {
		if i.Name != "first" && i.Name != "gone" {
			t.Errorf("%s is back", i.Name)
		}
	}
	equal(t, a, "first", r.old)
	if v := must(a.Verify(t.Context(), nil, nil)); len(v.Damaged) > 0 {
		t.Errorf("%v", v.Damaged)
	}
	tidy(t, a, m)
}

// filled returns an index with what is in its pages.
func filled(t testing.TB, a *Archive, x *index) *index {
	t.Helper()
	ok(t, a.fill(t.Context(), x))
	return x
}

// tidy sees that a store has nothing that no snapshot needs.
func tidy(t *testing.T, a *Archive, m *memory) {
	t.Helper()
	needed := map[string]bool{configKey: true}
	ok(t, a.each(t.Context(), nil, func(x *index) error {
		for _, p := range append(filled(t, a, x).packs, x.pages.packs...) {
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
	x := &index{Info: Info{ID: "aaaaaaaaaaaaaaaa", Size: 1 << 20}}
	x.contents = contents{[]string{"a/0"}, []location{{offset: 1, length: 2}}, []extent{{0, 8, 0, 0}}}
	x.pages = contents{x.packs, x.chunks, []extent{{0, pageSectors, 0, 0}}}
	f.Add(must(x.encode(c, 1)))
	f.Add(must(x.encode(c, 2)))
	f.Add([]byte(goneMark))
	f.Fuzz(func(t *testing.T, p []byte) {
		if x, err := decode(c, "aaaaaaaaaaaaaaaa", p); err == nil && !(x.sound() && x.soundPages()) {
			t.Error("an unsound index is taken")
		}
	})
}
