package nbddev

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"udm/blk"
)

// What is repeated gives each sector the newest data that are not durable, and
// touches no sector without any.
func TestKeptAgainstAModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const sectors = 64
	type version struct {
		number uint64
		fill   byte
	}
	var want [sectors]version // fill 0: nothing to repeat
	k := kept{limit: 1 << 30}
	for i := range 5000 {
		at := rng.Uint64N(sectors)
		n := 1 + rng.Uint64N(min(12, sectors-at))
		b := &blk.Bio{Op: blk.Write, Sector: at}
		fill := byte(1 + i%255)
		b.SetData(bytes.Repeat([]byte{fill}, int(n)*blk.SectorSize))
		v := version{k.last + 1, fill}
		switch rng.IntN(12) {
		case 0:
			upTo := k.last - min(k.last, rng.Uint64N(20))
			k.trim(upTo)
			for s := range want {
				if want[s].number <= upTo {
					want[s] = version{}
				}
			}
			continue
		case 1, 2:
			v = version{}
			k.supersede(b)
		default:
			k.add(b)
		}
		for s := at; s < at+n; s++ {
			want[s] = v
		}
		var got [sectors]byte
		used := 0
		for _, e := range k.live() {
			used += e.cost()
			for s := range e.sectors {
				got[e.sector+s] = e.data[s*blk.SectorSize]
			}
		}
		for s := range want {
			if got[s] != want[s].fill && want[s].fill != 0 || want[s].number == 0 && got[s] != 0 {
				t.Fatalf("step %d, sector %d: %d, want %+v", i, s, got[s], want[s])
			}
		}
		if used != k.used {
			t.Fatalf("step %d: %d bytes are used, it counts %d", i, used, k.used)
		}
	}
	k.trim(k.last)
	if k.used != 0 || len(k.live()) != 0 {
		t.Errorf("%d bytes are left", k.used)
	}
}
