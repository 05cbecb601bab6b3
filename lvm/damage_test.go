package lvm

import (
	"encoding/binary"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/internal/invariants"
	"udm/targets/linear"
	"udm/targets/striped"
)

// trees are the devices of all groups that can be used, in words.
func trees(r *Result) (list []string) {
	for _, g := range r.Groups {
		if ds, _, err := g.Tree(TreeOptions{Skip: true}); err == nil {
			list = append(list, describe(ds)...)
		}
	}
	return list
}

// complaints are everything that is said to be wrong.
func complaints(r *Result) (list []string) {
	for _, d := range r.Disks {
		list = append(list, d.problems()...)
	}
	for _, g := range r.Groups {
		list = append(list, g.Problems...)
		if g.Err != nil {
			list = append(list, g.Err.Error())
		}
	}
	return list
}

// checkErrors fails for an error that does not say where.
func checkErrors(t testing.TB, r *Result) {
	t.Helper()
	for _, d := range r.Disks {
		errs := []error{d.Err}
		for _, a := range d.Areas {
			errs = append(errs, a.Err)
		}
		for _, err := range errs {
			var typed *DiskError
			if err != nil && !errors.As(err, &typed) {
				t.Errorf("%T: %v", err, err)
			}
		}
	}
}

// checkInside fails for a table that goes beyond a disk, has a hole, or names a device
// that is not there before it.
func checkInside(t testing.TB, g *Assembled) {
	t.Helper()
	ds, _, err := g.Tree(TreeOptions{Skip: true, Partial: true})
	if err != nil {
		return
	}
	room := map[string]uint64{}
	for _, p := range g.PVs {
		if d := g.Disks[p.Name]; d != nil {
			room[d.Name] = p.Start + p.Count*g.ExtentSize
		}
	}
	for _, d := range ds {
		var next uint64
		for _, l := range d.Table {
			if l.Start != next || l.Len == 0 {
				t.Fatalf("%s: a hole before %v", d.Name, l)
			}
			next += l.Len
			checkLine(t, room, l)
		}
		room["/dev/mapper/"+d.Name] = next
	}
}

func checkLine(t testing.TB, room map[string]uint64, l Line) {
	t.Helper()
	for _, w := range l.Devices() {
		if _, there := room[*w.Name]; !there {
			t.Fatalf("%v: there is no %s", l, *w.Name)
		}
	}
	var end uint64
	var device string
	switch k := l.Line.(type) {
	case *linear.Line:
		device, end = k.Device, k.Start+l.Len
	case *striped.Line:
		device, end = k.Stripes[0].Device, k.Stripes[0].Start+l.Len/uint64(len(k.Stripes))
	}
	if end > room[device] {
		t.Fatalf("%v: %s has %d sectors", l, device, room[device])
	}
}

// spots are the bytes of a disk that hold its label and metadata.
func spots(f *Found) (rs []Range) {
	rs = append(rs, Range{f.Label.Sector * blk.SectorSize, blk.SectorSize})
	for _, a := range f.Areas {
		rs = append(rs, Range{a.Offset, areaHeader})
		if a.Text != nil {
			n := (a.Text.Size + blk.SectorSize - 1) / blk.SectorSize * blk.SectorSize
			rs = append(rs, Range{a.Offset + a.Text.Offset, min(n, a.Size-a.Text.Offset)})
		}
	}
	return rs
}

// Damaged labels, headers and texts: what is left is told of, and no table is another
// one than before.
func TestDamage(t *testing.T) {
	for part, disks := range goldenOf(t) {
		before := Scan(env.Real(), disks)
		whole := trees(before)
		labelled := slices.DeleteFunc(slices.Clone(before.Disks), func(f *Found) bool { return f.Label == nil })
		for seed := range seeds() {
			rng := rand.New(rand.NewPCG(seed, 1))
			damaged := slices.Clone(disks)
			i := slices.Index(before.Disks, labelled[rng.IntN(len(labelled))])
			all := spots(before.Disks[i])
			at := all[rng.IntN(len(all))]
			d := disks[i].Device.(*memdev.Device).Clone()
			p := read(t, d, int(at.Size), at.Offset)
			changed := spoil(rng, p)
			write(t, d, p, at.Offset)
			damaged[i].Device = d
			r := Scan(env.Real(), damaged)
			checkErrors(t, r)
			for _, device := range trees(r) {
				if !slices.Contains(whole, device) {
					t.Fatalf("%s, seed %d: a wrong table: %s", part, seed, device)
				}
			}
			if changed && len(trees(r)) < len(whole) && len(complaints(r)) == 0 && r.Disks[i].Label != nil {
				t.Fatalf("%s, seed %d: volumes are gone, and nothing is said", part, seed)
			}
		}
	}
}

var damaged = flag.Uint64("damaged", 1000, "number of damaged disks of each kind; a tenth of it with invariants, where each costs ten times as much")

func seeds() uint64 {
	if invariants.Enabled {
		return *damaged / 10
	}
	return *damaged
}

// spoil changes bytes, and reports whether they are others now.
func spoil(rng *rand.Rand, p []byte) bool {
	before := slices.Clone(p)
	switch at := rng.IntN(len(p)); rng.IntN(3) {
	case 0:
		p[at] ^= 1 << rng.IntN(8)
	case 1:
		clear(p[at:])
	default:
		for i := at; i < min(len(p), at+32); i++ {
			p[i] = byte(rng.Uint32())
		}
	}
	return !slices.Equal(p, before)
}

// repair gives the label, headers and texts at their places right checksums.
func repair(t testing.TB, d blk.Device) {
	le := binary.LittleEndian
	label := read(t, d, blk.SectorSize, blk.SectorSize)
	le.PutUint32(label[16:], checksum(label[20:]))
	write(t, d, label, blk.SectorSize)
	l, err := parseLabel(label, 1)
	if err != nil {
		return
	}
	for _, r := range l.Metadata {
		if r.Offset%blk.SectorSize != 0 || r.Offset/blk.SectorSize >= d.Limits().Size || r.Size < areaSmall {
			continue
		}
		h := read(t, d, areaHeader, r.Offset)
		s := slot{le.Uint64(h[40:]), le.Uint64(h[48:]), 0, 0}
		if s.offset < r.Size && s.offset%blk.SectorSize == 0 && s.size <= min(r.Size-areaHeader, maxText) {
			if b, err := readRing(env.Real(), d, r, s); err == nil {
				le.PutUint32(h[56:], checksum(b))
			}
		}
		le.PutUint32(h, checksum(h[4:]))
		write(t, d, h, r.Offset)
	}
}

// Texts and headers that were changed and have right checksums: no table goes beyond
// its disks.
func TestHostile(t *testing.T) {
	words := []string{"0", "1", "7", "18446744073709551615", "4294967295", "-1", "\"pv0\"", "\"pv1\"", "\"a\"", "{", "}", "[", "]", "\"striped\"", "\"thin\"", "\"snapshot\"", "\"thin-pool\""}
	good := 0
	for _, part := range []string{"plain", "thin"} {
		disks := goldenOf(t)[part]
		before := Scan(env.Real(), disks)
		texts := map[string]int{"plain": 3, "thin": 2}[part] // on the first disks
		for seed := range seeds() {
			rng := rand.New(rand.NewPCG(seed, 2))
			i := rng.IntN(texts)
			a := before.Disks[i].Areas[0]
			hostile := slices.Clone(disks)
			d := disks[i].Device.(*memdev.Device).Clone()
			text, err := readRing(env.Real(), d, a.Range, slot{a.Text.Offset, a.Text.Size, 0, 0})
			if err != nil {
				t.Fatal(err)
			}
			changed := changeWord(rng, string(text[:len(text)-1]), words)
			writeText(t, d, a, changed)
			hostile[i].Device = d
			r := Scan(env.Real(), hostile)
			checkErrors(t, r)
			for _, g := range r.Groups {
				checkInside(t, g)
				if g.Err == nil {
					good++
				}
			}
		}
	}
	if good == 0 {
		t.Error("no group was usable: the texts never came that far")
	}
}

// changeWord puts a word in the place of another.
func changeWord(rng *rand.Rand, text string, words []string) string {
	fields := strings.Split(text, " ")
	i := rng.IntN(len(fields))
	word := fields[rng.IntN(len(fields))]
	if rng.IntN(2) == 0 {
		word = words[rng.IntN(len(words))]
	}
	if _, rest, cut := strings.Cut(fields[i], "\n"); cut {
		word += "\n" + rest
	}
	fields[i] = word
	return strings.Join(fields, " ")
}

// writeText makes a text the committed one of an area, in its first place.
func writeText(t testing.TB, d blk.Device, a *Area, text string) {
	le := binary.LittleEndian
	b := append([]byte(text), 0)
	padded := make([]byte, (len(b)+blk.SectorSize-1)/blk.SectorSize*blk.SectorSize)
	copy(padded, b)
	if uint64(len(padded)) > a.Size-areaHeader {
		return
	}
	write(t, d, padded, a.Offset+areaHeader)
	h := read(t, d, areaHeader, a.Offset)
	le.PutUint64(h[40:], areaHeader)
	le.PutUint64(h[48:], uint64(len(b)))
	le.PutUint32(h[56:], checksum(b))
	le.PutUint32(h, checksum(h[4:]))
	write(t, d, h, a.Offset)
}

// fuzzSectors is what a fuzzed disk has of its own: label, header and a short text.
const fuzzSectors = 24

func FuzzDisk(f *testing.F) {
	disks := goldenOf(f)
	for _, d := range append(disks["plain"], disks["thin"]...) {
		f.Add(read(f, d.Device, fuzzSectors*blk.SectorSize, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := memdev.New(8192)
		n := min(len(b), 8192*blk.SectorSize) / blk.SectorSize * blk.SectorSize
		if n < 2*blk.SectorSize {
			return
		}
		write(t, d, b[:n], 0)
		repair(t, d)
		r := Scan(env.Real(), []Disk{{"d", d}})
		checkErrors(t, r)
		for _, g := range r.Groups {
			checkInside(t, g)
		}
	})
}
