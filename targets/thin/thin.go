package thin

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
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
	blockShift   int8 // log2 of blockSectors; -1 if that is not a power of two

	requeue atomic.Bool // a noflush suspend is under way; written by the owner
	ready   atomic.Bool // in pool.inbox.ready

	mu      sync.Mutex
	cells   []*prison.Cell // guarded by mu; deferred to the owner
	bios    dm.CloneList   // guarded by mu; deferred to the owner
	retries dm.CloneList   // guarded by mu; wait for space
}

func newThin(t *dm.Target, args []string) (dm.Mapper, error) {
	l, wrong := ParseThinLine(args)
	if l == nil {
		return nil, wrong
	}
	th := &thin{t: t, pools: poolsOf(t)}
	th.pools.mu.Lock()
	defer th.pools.mu.Unlock()
	if err := th.open(l); err != nil {
		return nil, err
	}
	if wrong != nil {
		return nil, wrong
	}
	if err := th.join(l.ID); err != nil {
		return nil, err
	}
	t.MaxIOLen = th.blockSectors
	t.NumFlush, t.FlushSupported = 1, true
	if th.pool.published.discards.Load() {
		t.NumDiscard, t.DiscardsSupported = 1, true
	}
	return th, nil
}

// open opens the devices of the line.
func (t *thin) open(l *ThinLine) (err error) {
	if l.Origin != "" {
		if t.origin, err = t.t.Open(l.Origin, false); err != nil {
			return failed(err, "Error opening origin device")
		}
		t.originCopy = kcopyd.Open(t.origin)
	}
	if t.poolDev, err = t.t.Open(l.Pool, t.t.Writable()); err != nil {
		return failed(err, "Error opening pool device")
	}
	t.poolCopy = kcopyd.Open(t.poolDev)
	return nil
}

// join adds the thin to its pool. Called with pools.mu held.
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
	t.pool, t.blockSectors, t.blockShift = p, p.blockSectors, -1
	if p.blockSectors&(p.blockSectors-1) == 0 {
		t.blockShift = int8(bits.TrailingZeros64(p.blockSectors))
	}
	var err error
	p.call(func() { err = p.admit(t, id) })
	if err == nil {
		p.refs++
	}
	return err
}

// admit opens the volume of a thin and adds the thin to the active list.
func (p *pool) admit(t *thin, id uint32) (err error) {
	if t.vol, err = p.openVolume(id); err != nil {
		return failed(err, "Couldn't open thin internal device")
	}
	if !p.activate(t) {
		p.closeVolume(t.vol)
		return invalid("Unable to activate thin device while pool is suspended")
	}
	return nil
}

// activate adds the thin to the active list unless the pool is suspended.
func (p *pool) activate(t *thin) bool {
	p.inbox.mu.Lock()
	defer p.inbox.mu.Unlock()
	if !p.inbox.suspended {
		p.inbox.active = append(p.inbox.active, t)
	}
	return !p.inbox.suspended
}

func (t *thin) Close() {
	t.pools.mu.Lock()
	defer t.pools.mu.Unlock()
	p := t.pool
	p.call(func() {
		p.inbox.mu.Lock()
		p.inbox.active = slices.DeleteFunc(p.inbox.active, func(o *thin) bool { return o == t })
		p.inbox.mu.Unlock()
		p.closeVolume(t.vol)
	})
	t.pools.put(p)
}

func (t *thin) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	s := &ThinStatus{State: Fail}
	switch {
	case t.pool.mode() == modeFail: // replaces the table line, too
	case kind == dm.TableText:
		return t.line().String()
	default:
		t.pool.call(func() { s = t.info() })
	}
	return s.String()
}

func (t *thin) line() *ThinLine {
	l := &ThinLine{Pool: t.poolDev.Name(), ID: t.vol.id}
	if t.origin != nil {
		l.Origin = t.origin.Name()
	}
	return l
}

func (t *thin) info() *ThinStatus {
	highest, ok, err := t.vol.td.HighestMapped()
	if err != nil {
		return &ThinStatus{State: Error}
	}
	s := &ThinStatus{Mapped: t.vol.td.Mapped() * t.blockSectors}
	if ok {
		s.End = (highest + 1) * t.blockSectors
	}
	return s
}

// Areas is the whole blocks of the pool device, once a table of the pool is in force.
func (t *thin) Areas() []dm.Area {
	if n := t.pool.published.sectors.Load(); n > 0 {
		return []dm.Area{{Dev: t.poolDev, Len: n}}
	}
	return nil
}

// Uncommitted reports whether the volume has changed since the last commit.
func (t *thin) Uncommitted() bool { return t.vol.changed.Load() }

// maxDiscard is 16 GiB, the kernel's limit for one discard.
const maxDiscard = 16 << 30 / blk.SectorSize

func (t *thin) Hint(l *blk.Limits) {
	l.ProcessCache = true // new mappings are not committed yet
	if t.pool.published.discards.Load() {
		l.DiscardGranularity = uint32(t.blockSectors * blk.SectorSize)
		l.MaxDiscard = maxDiscard
	}
}
