package virtq

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// A device that ends at any moment loses no request and gives none back twice: the next
// one begins with what was in flight, in the order in which it was taken.
func TestInflightOverDevices(t *testing.T) {
	const size = 16
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		g := newGuest(t, size, heap)
		d := g.driver(t, size, Features{})
		mem := make([]byte, InflightLen(size))
		resume := func() *split {
			q, err := newSplit(Config{Size: size, Mem: g.mem, Rings: g.rings, Next: r.Uint32(), Inflight: mem})
			if err != nil {
				t.Fatal(err)
			}
			return q
		}
		q, err := newSplit(Config{Size: size, Mem: g.mem, Rings: g.rings, Inflight: mem})
		if err != nil {
			t.Fatal(err)
		}
		var taken, done []uint16 // in the order of the driver; of taken, what was put and not published is in done
		added, back := 0, 0
		var c Chain
		for range 200 {
			switch r.IntN(6) {
			case 0, 1:
				if _, ok := d.Add(nil, []Buf{{dataAt, 8}}); ok {
					added++
				}
				d.Publish()
			case 2:
				ok, err := q.Next(&c)
				if err != nil {
					t.Fatal(err)
				}
				if ok && !slices.Contains(taken, c.Head) {
					taken = append(taken, c.Head)
				}
			case 3:
				if i := slices.IndexFunc(taken, func(h uint16) bool { return q.busy[h] }); i >= 0 {
					i = i + r.IntN(len(taken)-i)
					if q.busy[taken[i]] {
						q.Put(taken[i], 0)
						done = append(done, taken[i])
					}
				}
			case 4:
				before := slices.Clone(mem)
				q.Publish()
				left := func(h uint16) bool { return slices.Contains(done, h) }
				taken, done = slices.DeleteFunc(taken, left), nil
				if r.IntN(2) == 0 { // it ended after the store to the ring
					copy(mem, before)
					q = resume()
				}
			case 5:
				q, done = resume(), nil
				if !slices.Equal(q.again, taken) {
					t.Fatalf("seed %d: %d are begun again, %d were in flight", seed, q.again, taken)
				}
			}
			for {
				if _, _, ok := d.Reap(); !ok {
					break
				}
				back++
			}
		}
		if want := added - len(taken) - int(g.pending(q)); back != want {
			t.Fatalf("seed %d: %d came back, want %d", seed, back, want)
		}
	}
}

// pending counts what is available and was not taken.
func (g *guest) pending(q *split) uint16 { return load16(g.rings.Avail, 2) - q.next }

// Notes that make no sense break the ring, or are begun anew, and no more.
func TestForgedNotes(t *testing.T) {
	const size = 8
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		g := newGuest(t, size, heap)
		d := g.driver(t, size, Features{})
		d.Add(nil, []Buf{{dataAt, 8}})
		d.Publish()
		mem := make([]byte, InflightLen(size))
		for i := range mem {
			mem[i] = byte(r.Uint32())
		}
		binary.LittleEndian.PutUint16(mem[8:], uint16(r.IntN(3)))
		binary.LittleEndian.PutUint16(mem[10:], size)
		binary.LittleEndian.PutUint16(mem[14:], uint16(r.IntN(10)-9))
		q, err := NewQueue(Config{Size: size, Mem: g.mem, Rings: g.rings, Inflight: mem})
		if err != nil {
			continue
		}
		drain(t, q, size)
	}
	for _, n := range []int{-1, 0, size + 1, MaxSize + 1} {
		if _, _, _, err := notesOf(make([]byte, 16+32*size), n); err == nil {
			t.Errorf("notes of %d", n)
		}
	}
}

// drain takes and puts back what there is: no more chains than the ring has entries.
func drain(t *testing.T, q Queue, size int) {
	t.Helper()
	var c Chain
	for n := 0; ; n++ {
		if ok, _ := q.Next(&c); !ok {
			break
		}
		if n > size {
			t.Fatal("more requests than the ring has")
		}
		q.Put(c.Head, 0)
	}
	q.Publish()
}
