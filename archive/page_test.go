package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// wide is a disk of several pages, of which only some chunks are used.
type wide map[uint64][]byte // by their offsets

const (
	gib      = 1 << 30
	wideSize = 6*gib + ChunkSize
)

// write changes a part of each of some chunks.
func (w wide) write(rng *rand.Rand, offsets ...uint64) (list []change) {
	for _, at := range offsets {
		p := make([]byte, ChunkSize)
		copy(p, w[at])
		w[at] = p
		from := rng.Uint64N(1000) * sector
		part := p[from : from+(1+rng.Uint64N(1000))*sector]
		for i := range part {
			part[i] = byte(rng.Uint32())
		}
		list = append(list, change{at + from, part, 0})
	}
	return list
}

// equal checks that a snapshot has these chunks, and nothing else.
func (w wide) equal(t *testing.T, a *Archive, name string) {
	t.Helper()
	s := must(a.Snapshot(t.Context(), name, nil))
	got := wide{}
	ok(t, s.Each(t.Context(), func(offset uint64, p []byte) error {
		at := offset &^ (ChunkSize - 1)
		if got[at] == nil {
			got[at] = make([]byte, ChunkSize)
		}
		copy(got[at][offset-at:], p)
		return nil
	}))
	if !maps.EqualFunc(got, w, bytes.Equal) {
		t.Fatalf("snapshot %s is another one", name)
	}
}

// zero clears the first half of a chunk.
func (w wide) zero(at uint64) []change {
	p := bytes.Clone(w[at])
	clear(p[:ChunkSize/2])
	w[at] = p
	return []change{{at, nil, ChunkSize / 2}}
}

// generations archives a disk and then what little changes in it: parts of two pages, but in
// generation zeroed only zeroes of one, for which no chunk is stored but the page. nth is the
// snapshot of a generation.
func generations(t *testing.T, a *Archive) (disks []wide) {
	rng := rand.New(rand.NewPCG(11, 12))
	disk, offsets := wide{}, []uint64{}
	for at := uint64(0); at <= 6*gib; at += gib / 2 {
		offsets = append(offsets, at)
	}
	list, base := disk.write(rng, offsets...), ""
	for i := range 9 {
		base = must(backup(t.Context(), a, nth(i), base, wideSize, list)).ID
		disks = append(disks, maps.Clone(disk))
		if i+1 == zeroed {
			list = disk.zero(6 * gib)
			continue
		}
		list = disk.write(rng, offsets[i], offsets[i+3])
	}
	return disks
}

const zeroed = 4

func nth(i int) string { return fmt.Sprint("gen", i) }

// TestPages archives a disk of several pages, of which little changes at a time, removes some
// of the snapshots, and then all. Archives of version 1 are the same without pages.
func TestPages(t *testing.T) {
	for v := 1; v <= version; v++ {
		t.Run(fmt.Sprint("version ", v), func(t *testing.T) {
			m := newMemory()
			ok(t, initAs(t.Context(), m, nil, v))
			a := open(t, m, nil)
			disks := generations(t, a)
			for i := 0; i < len(disks); i += 2 {
				ok(t, a.Remove(t.Context(), nth(i)))
			}
			must(a.Prune(t.Context()))
			for i := 1; i < len(disks); i += 2 {
				disks[i].equal(t, a, nth(i))
			}
			if c := must(a.Verify(t.Context(), nil, nil)); c.Snapshots != len(disks)/2 || len(c.Damaged) > 0 {
				t.Errorf("%+v", c)
			}
			tidy(t, a, m)
			for i := 1; i < len(disks); i += 2 {
				ok(t, a.Remove(t.Context(), nth(i)))
			}
			if p := must(a.Prune(t.Context())); p.Kept > 0 || p.Packs == 0 {
				t.Errorf("%+v", p)
			}
			tidy(t, a, m)
		})
	}
}

// TestSharedPages: a snapshot stores the pages in which it differs from its base, and those
// that lie side by side are read with one request.
func TestSharedPages(t *testing.T) {
	m := newMemory()
	ok(t, Init(t.Context(), m, nil))
	a := open(t, m, nil)
	disks := generations(t, a)
	before := map[place]bool{}
	for i := range disks {
		x := must(a.find(t.Context(), nth(i)))
		want := map[int]int{0: 7, zeroed: 1}
		if fresh := x.unseen(before); len(fresh) != cmp.Or(want[i], 2) {
			t.Errorf("%s: %d new pages", x.Name, len(fresh))
		}
		for _, e := range x.pages.extents {
			before[x.pages.place(e.chunk)] = true
		}
	}
	x := must(a.find(t.Context(), nth(0)))
	m.calls = 0
	filled(t, a, x)
	if m.calls != 1 {
		t.Errorf("%d requests for pages that lie side by side", m.calls)
	}
}

// TestPagesAsNeeded: of a snapshot that is opened only the pages are read that are needed, once.
func TestPagesAsNeeded(t *testing.T) {
	m := newMemory()
	ok(t, Init(t.Context(), m, nil))
	a := open(t, m, nil)
	disk := generations(t, a)[0]
	s := must(a.Snapshot(t.Context(), nth(0), nil))
	m.calls = 0
	read := func(at uint64, calls int) {
		t.Helper()
		p := make([]byte, ChunkSize)
		ok(t, s.Read(t.Context(), p, at/sector))
		if want, used := disk[at]; used && !bytes.Equal(p, want) || !used && !bytes.Equal(p, make([]byte, len(p))) {
			t.Errorf("at %d something else is read", at)
		}
		if m.calls != calls {
			t.Errorf("%d requests, want %d", m.calls, calls)
		}
	}
	read(2*gib, 2) // a page and a chunk
	read(2*gib+gib/2, 3)
	read(2*gib+gib/4, 3) // nothing is there
	read(2*gib, 3)
	read(5*gib, 5)
	p := make([]byte, 2*ChunkSize)
	ok(t, s.Read(t.Context(), p, (3*gib-ChunkSize)/sector)) // two pages, in one nothing
	if !bytes.Equal(p, append(make([]byte, ChunkSize), disk[3*gib]...)) || m.calls != 7 {
		t.Errorf("over the bound of two pages something else is read, with %d requests", m.calls)
	}
}

// TestForeignPage: a page of other sectors is not taken for that of an index.
func TestForeignPage(t *testing.T) {
	m := newMemory()
	ok(t, Init(t.Context(), m, nil))
	a := open(t, m, nil)
	generations(t, a)
	s := must(a.Snapshot(t.Context(), nth(0), nil))
	pages := s.x.pages.extents
	pages[1].chunk, pages[2].chunk = pages[2].chunk, pages[1].chunk
	for _, e := range pages[1:3] {
		if err := s.Read(t.Context(), make([]byte, sector), e.sector); !errors.Is(err, errBlob) {
			t.Errorf("at %d: %v", e.sector, err)
		}
	}
}

// TestDamagedPage: of a snapshot with a damaged page the rest can be read, it is not restored,
// all else is verified, and a prune that cannot tell what is needed removes nothing.
func TestDamagedPage(t *testing.T) {
	m := newMemory()
	ok(t, Init(t.Context(), m, nil))
	a := open(t, m, nil)
	disks := generations(t, a)
	whole := must(a.Verify(t.Context(), nil, nil))
	last := len(disks) - 1
	x := must(a.find(t.Context(), nth(last)))
	l := x.pages.chunks[len(x.pages.chunks)-1]
	key := packs + x.pages.packs[l.pack]
	m.objects[key][l.offset+l.length/2] ^= 1
	damaged := x.pages.extents[len(x.pages.extents)-1]
	s := must(a.Snapshot(t.Context(), x.ID, nil))
	for at, want := range disks[last] {
		p := make([]byte, ChunkSize)
		err := s.Read(t.Context(), p, at/sector)
		if at/sector >= damaged.sector && (err == nil || !strings.Contains(err.Error(), x.ID)) {
			t.Error(err)
		} else if at/sector < damaged.sector && (err != nil || !bytes.Equal(p, want)) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	var end uint64
	s.Extents(t.Context(), damaged.sector, func(at, n uint64) bool { end = at + n; return true })
	if end != wideSize/sector {
		t.Errorf("data ends at %d", end)
	}
	if err := s.Each(t.Context(), func(uint64, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), x.ID) {
		t.Error(err)
	}
	v := must(a.Verify(t.Context(), nil, nil))
	if v.Snapshots != len(disks) || len(v.Damaged) != last-zeroed+1 || v.Chunks != whole.Chunks {
		t.Errorf("%+v; before %d chunks", v, whole.Chunks)
	}
	ok(t, a.Remove(t.Context(), nth(0)))
	objects := len(m.objects)
	if _, err := a.Prune(t.Context()); err == nil || len(m.objects) != objects {
		t.Errorf("pruned to %d of %d objects: %v", len(m.objects), objects, err)
	}
}

// TestVersions: what a newer udm has made is refused in words.
func TestVersions(t *testing.T) {
	for v, refused := range map[int]bool{0: true, 1: false, version: false, version + 1: true} {
		m := newMemory()
		ok(t, initAs(t.Context(), m, nil, v))
		_, err := Open(context.Background(), m, nil)
		if refused != (err != nil) || refused && !strings.Contains(err.Error(), fmt.Sprint("format ", v)) {
			t.Errorf("version %d: %v", v, err)
		}
	}
	m := newMemory()
	ok(t, initAs(t.Context(), m, nil, 1))
	info := must(backup(t.Context(), open(t, m, nil), "old", "", 1<<20, []change{{0, make([]byte, 512), 0}}))
	if o := m.objects[snapshots+info.ID]; !slices.Equal(o[:8], []byte(wholeMark)) {
		t.Errorf("an index of version 1 begins with %q", o[:8])
	}
}
