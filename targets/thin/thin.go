package thin

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/targets/thin/thinmeta"
	"udm/targets/internal/kcopyd"
	"udm/targets/internal/prison"
)

// thin is one thin line of a table (struct thin_c).
type thin struct {
	t            *dm.Target
	pools        *pools
	pool         *pool
	vol          *volume
	poolDev      *dm.Dev
	origin       *dm.Dev // nil: none
	poolCopy     *kcopyd.Dev
	originCopy   *kcopyd.Dev
	originSize   atomic.Uint64 // sectors; as of the last resume
	blockSectors uint64
	blockShift   int8 // log2 of blockSectors; -1 if it is no power of two

	requeue atomic.Bool // a noflush suspend is under way; written by the owner
	ready   atomic.Bool // in pool.ready

	mu      sync.Mutex
	cells   []*prison.Cell // guarded by mu; deferred to the owner
	bios    dm.CloneList   // guarded by mu; deferred to the owner
	retries dm.CloneList   // guarded by mu; wait for space
}

const maxID = thinmeta.MaxID

func newThin(t *dm.Target, args []string) (dm.Mapper, error) {
	if len(args) != 2 && len(args) != 3 {
		return nil, invalid("Invalid argument count")
	}
	th := &thin{t: t, pools: poolsOf(t)}
	th.pools.mu.Lock()
	defer th.pools.mu.Unlock()
	if err := th.open(args); err != nil {
		return nil, err
	}
	id, ok := parseNumber(args[1])
	if !ok || id > maxID {
		return nil, invalid("Invalid device id")
	}
	if err := th.join(uint32(id)); err != nil {
		return nil, err
	}
	t.MaxIOLen = th.blockSectors
	t.NumFlush, t.FlushSupported = 1, true
	if th.pool.discards.Load() {
		t.NumDiscard, t.DiscardsSupported = 1, true
	}
	return th, nil
}

// open opens the devices that the table names.
func (t *thin) open(args []string) (err error) {
	if len(args) == 3 {
		if args[0] == args[2] {
			return invalid("Error setting origin device")
		}
		if t.origin, err = t.t.Open(args[2], false); err != nil {
			return failed(err, "Error opening origin device")
		}
		t.originCopy = kcopyd.Open(t.origin)
	}
	if t.poolDev, err = t.t.Open(args[0], t.t.Writable()); err != nil {
		return failed(err, "Error opening pool device")
	}
	t.poolCopy = kcopyd.Open(t.poolDev)
	return nil
}

// join makes the thin one of its pool's. Called with pools.mu held.
func (t *thin) join(id uint32) error {
	md := t.poolDev.Mapped()
	if md == nil {
		return invalid("Couldn't get pool mapped device")
	}
	p := t.pools.of(md)
	if p == nil {
		return invalid("Couldn't find pool object")
	}
	if p.mode() == modeFail {
		return invalid("Couldn't open thin device, Pool is in fail mode")
	}
	var err error
	p.call(func() { t.vol, err = p.openVolume(id) })
	if err != nil {
		return failed(err, "Couldn't open thin internal device")
	}
	t.pool, t.blockSectors, t.blockShift = p, p.blockSectors, -1
	if p.blockSectors&(p.blockSectors-1) == 0 {
		t.blockShift = int8(bits.TrailingZeros64(p.blockSectors))
	}
	if !p.activate(t) {
		p.call(func() { p.closeVolume(t.vol) })
		return invalid("Unable to activate thin device while pool is suspended")
	}
	p.refs++
	return nil
}

// activate lists the thin unless the pool is suspended.
func (p *pool) activate(t *thin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.suspended {
		p.active = append(p.active, t)
	}
	return !p.suspended
}

func (t *thin) Close() {
	t.pools.mu.Lock()
	defer t.pools.mu.Unlock()
	p := t.pool
	p.call(func() {
		p.mu.Lock()
		p.active = slices.DeleteFunc(p.active, func(o *thin) bool { return o == t })
		p.mu.Unlock()
		p.closeVolume(t.vol)
	})
	t.pools.put(p)
}

func (t *thin) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if t.pool.mode() == modeFail {
		return "Fail"
	}
	if kind == dm.TableText {
		s := fmt.Sprintf("%s %d", t.poolDev.Name(), t.vol.id)
		if t.origin != nil {
			s += " " + t.origin.Name()
		}
		return s
	}
	var s string
	t.pool.call(func() { s = t.info() })
	return s
}

func (t *thin) info() string {
	highest, ok, err := t.vol.td.HighestMapped()
	switch {
	case err != nil:
		return "Error"
	case !ok:
		return fmt.Sprintf("%d -", t.vol.td.Mapped()*t.blockSectors)
	}
	return fmt.Sprintf("%d %d", t.vol.td.Mapped()*t.blockSectors, (highest+1)*t.blockSectors-1)
}

// Areas is the part of the pool device that holds whole blocks, once a table of
// the pool is in force.
func (t *thin) Areas() []dm.Area {
	if n := t.pool.mapped.Load(); n > 0 {
		return []dm.Area{{Dev: t.poolDev, Len: n}}
	}
	return nil
}

// maxDiscard is 16 GiB, the kernel's bound for one discard.
const maxDiscard = 16 << 30 / blk.SectorSize

func (t *thin) Hint(l *blk.Limits) {
	if t.pool.discards.Load() {
		l.DiscardGranularity = uint32(t.blockSectors * blk.SectorSize)
		l.MaxDiscard = maxDiscard
	}
}
