package segment

import (
	"math/rand/v2"
	"slices"
	"testing"

	"udm/blk"
	"udm/dm"
)

// sparse is a device that is nothing but an allocation map, which it tells a part
// at a time.
type sparse struct {
	blk.Device
	size  uint64
	data  []bool // of the first sectors; behind them are holes
	most  uint64
	calls int
}

func (d *sparse) Limits() blk.Limits { return blk.DefaultLimits(d.size) }

func (d *sparse) Extents(sector, sectors uint64) (list []blk.Extent, err error) {
	d.calls++
	n := min(sectors, d.most)
	for s := sector; s < min(sector+n, uint64(len(d.data))); s++ {
		list = blk.AppendExtent(list, blk.Extent{Sector: s, Sectors: 1, Data: d.data[s]})
	}
	done := blk.SumExtents(list)
	return blk.AppendExtent(list, blk.Extent{Sector: sector + done, Sectors: n - done}), nil
}

// striped is the layout of stripes of width sectors, in chunks.
func striped(segments []*Segment, chunk uint64) Layout {
	n := uint64(len(segments))
	return Layout{Row: n * chunk, Advance: chunk, Run: func(offset uint64) (*Segment, uint64, uint64) {
		i := offset / chunk
		return segments[i%n], i/n*chunk + offset%chunk, chunk - offset%chunk
	}}
}

// unstriped is the layout of one stripe of several that share a segment.
func unstriped(s *Segment, chunk, stripes, stripe uint64) Layout {
	return Layout{Row: chunk, Advance: stripes * chunk, Run: func(offset uint64) (*Segment, uint64, uint64) {
		return s, (offset/chunk*stripes+stripe)*chunk + offset%chunk, chunk - offset%chunk
	}}
}

// switched takes each region from a segment of its own choice.
func switched(segments []*Segment, region uint64, table []int) Layout {
	return Layout{Run: func(offset uint64) (*Segment, uint64, uint64) {
		return segments[table[offset/region]], offset, region - offset%region
	}}
}

// random makes segments whose maps have long and short runs.
func random(rng *rand.Rand, n int, size uint64) (segments []*Segment) {
	for range n {
		d := &sparse{size: 1000 + size, data: make([]bool, 1000+size), most: 1 + rng.Uint64N(size)}
		for at := 0; at < len(d.data); {
			run := min(len(d.data)-at, 1+rng.IntN(1<<rng.IntN(10)))
			if rng.IntN(2) == 0 {
				for i := range run {
					d.data[at+i] = true
				}
			}
			at += run
		}
		segments = append(segments, &Segment{&dm.Dev{Device: d}, rng.Uint64N(1000)})
	}
	return segments
}

// TestMapsAreExact compares maps of random layouts with the segments, sector by
// sector.
func TestMapsAreExact(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		const size = 3000
		n := 1 + rng.IntN(4)
		chunk := 1 + rng.Uint64N(1<<rng.IntN(9))
		var l Layout
		switch rng.IntN(3) {
		case 0:
			l = striped(random(rng, n, size), chunk)
		case 1:
			l = unstriped(random(rng, 1, 6*(size+chunk))[0], chunk, uint64(n), rng.Uint64N(uint64(n)))
		case 2:
			table := make([]int, size/chunk+1)
			for i := range table {
				table[i] = rng.IntN(n)
			}
			l = switched(random(rng, n, size), chunk, table)
		}
		begin := rng.Uint64N(size)
		end := begin + 1 + rng.Uint64N(size-begin)
		var want []blk.Extent
		for at := begin; at < end; at++ {
			s, sector, _ := l.Run(at)
			want = blk.AppendExtent(want, blk.Extent{Sector: at, Sectors: 1, Data: s.Dev.Device.(*sparse).data[s.Start+sector]})
		}
		want = want[:min(len(want), maxExtents)]
		if got := l.Extents(begin, end-begin); !slices.Equal(got, want) {
			t.Fatalf("seed %d, %d to %d: %v, want %v", seed, begin, end, got, want)
		}
	}
}

// TestRowsInOneStep has so many rows that one at a time would be too slow.
func TestRowsInOneStep(t *testing.T) {
	const width = 1 << 40
	device := func() *sparse { return &sparse{size: 8 * width, data: []bool{3: true}, most: 8 * width} }
	a, b := device(), device()
	segments := []*Segment{{&dm.Dev{Device: a}, 0}, {&dm.Dev{Device: b}, 0}}
	for name, l := range map[string]Layout{"striped": striped(segments, 2), "unstriped": unstriped(segments[0], 2, 2, 1)} {
		for _, begin := range []uint64{0, 1, 2, 3, 9} {
			a.calls, b.calls = 0, 0
			list := l.Extents(begin, width)
			if blk.SumExtents(list) != width || a.calls+b.calls > 10 {
				t.Errorf("%s from %d: %v, devices asked %d times", name, begin, list, a.calls+b.calls)
			}
		}
	}
}

// TestCallsAreBounded asks for more runs and more extents than one call looks at.
func TestCallsAreBounded(t *testing.T) {
	const size = 1 << 20
	holes := &sparse{size: size, most: size}
	mixed := &sparse{size: size, most: size, data: make([]bool, size)}
	for i := range mixed.data {
		mixed.data[i] = i%2 == 0
	}
	for d, want := range map[*sparse]uint64{holes: maxRuns, mixed: maxExtents} {
		l := switched([]*Segment{{&dm.Dev{Device: d}, 0}}, 1, make([]int, size))
		if got := blk.SumExtents(l.Extents(0, size)); got != want {
			t.Errorf("%d sectors in one call, want %d", got, want)
		}
	}
}
