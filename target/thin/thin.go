package thin

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/internal/invariants"
	"udm/pdata/thinmeta"
	"udm/target/internal/deferredset"
	"udm/target/internal/kcopyd"
	"udm/target/internal/prison"
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

// hook is what a thin keeps for each clone. Who owns the clone owns it.
type hook struct {
	allIO, sharedRead           deferredset.Entry
	allIOShard, sharedReadShard deferredset.Shard
	cell                        *prison.Cell // released when this discard ends
	requeue                     bool         // ends by being pushed back
}

func (t *thin) NewPerIO() any {
	return &hook{allIOShard: t.pool.allIO.Shard(), sharedReadShard: t.pool.sharedReads.Shard()}
}

func hookOf(c *dm.Clone) *hook { return c.PerIO.(*hook) }

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

// Map sends what it can to the pool device at once. From here on the clone's
// Sector counts from the target's begin.
func (t *thin) Map(c *dm.Clone) dm.Outcome {
	c.Sector = c.Offset()
	if c.Op <= blk.Write && c.Flags&blk.FUA == 0 && t.hit(c) {
		return dm.Remapped
	}
	return t.mapSlowly(c)
}

// hit maps c by the cache, if the cache permits it: see the package comment for
// the order of these steps.
func (t *thin) hit(c *dm.Clone) bool {
	tab := t.vol.cache.table.Load()
	block, off := t.split(c.Sector)
	word, tag := tab.at(block)
	w := word.Load()
	if !match(w, tag) || w&sharedBit != 0 && c.Op != blk.Read || t.requeue.Load() {
		return false
	}
	h := hookOf(c)
	if invariants.Enabled && t.pool.beforeEnter != nil {
		t.pool.beforeEnter()
	}
	t.enter(h, w&sharedBit != 0)
	if t.vol.cache.table.Load() != tab || word.Load() != w {
		t.leave(h)
		return false
	}
	c.Dev = t.poolDev.Device
	c.Sector = w&(1<<dataBits-1)*t.blockSectors + off
	return true
}

// split is the block that a sector lies in and its place there.
func (t *thin) split(sector uint64) (block, off uint64) {
	if t.blockShift >= 0 {
		return sector >> t.blockShift, sector & (t.blockSectors - 1)
	}
	return sector / t.blockSectors, sector % t.blockSectors
}

// enter counts a clone that is about to be issued.
func (t *thin) enter(h *hook, shared bool) {
	h.allIO = t.pool.allIO.Enter(h.allIOShard)
	if shared {
		h.sharedRead = t.pool.sharedReads.Enter(h.sharedReadShard)
	}
}

// leave undoes enter. It may run what waits for the clone.
func (t *thin) leave(h *hook) {
	if h.sharedRead.In() {
		e := h.sharedRead
		h.sharedRead = deferredset.Entry{}
		t.pool.sharedReads.Leave(e)
	}
	if h.allIO.In() {
		e := h.allIO
		h.allIO = deferredset.Entry{}
		t.pool.allIO.Leave(e)
	}
}

// EndIO ends the clone's part in the deferred sets, and a discard's cell.
func (t *thin) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	h := hookOf(c)
	cell, requeue := h.cell, h.requeue
	t.leave(h)
	if cell != nil {
		h.cell = nil
		t.deferCell(cell)
	}
	if requeue {
		h.requeue = false
		return st, dm.EndRequeue
	}
	return st, dm.EndDone
}

// mapSlowly is Map for what the cache does not know.
func (t *thin) mapSlowly(c *dm.Clone) dm.Outcome {
	switch {
	case t.requeue.Load():
		return dm.Requeue
	case t.pool.mode() == modeFail:
		return dm.Kill
	case c.Flags&blk.NoWait != 0:
		c.Complete(blk.WouldBlock)
	case c.Op > blk.Write || c.Flags&blk.FUA != 0:
		t.deferBio(c)
	default:
		block, _ := t.split(c.Sector)
		tab := t.vol.cache.table.Load()
		if cell := t.detain(block, c); cell != nil {
			return t.lookUp(cell, c, block, tab)
		}
	}
	return dm.Submitted
}

func (t *thin) detain(block uint64, c *dm.Clone) *prison.Cell {
	return t.pool.prison.Detain(prison.Block(true, t.vol.id, block), c)
}

// lookUp maps c, the holder of its block's cell, by the metadata that is in
// memory. tab was the cache's table before.
func (t *thin) lookUp(cell *prison.Cell, c *dm.Clone, block uint64, tab *table) dm.Outcome {
	m, err := t.vol.td.TryFind(block)
	switch {
	case err == nil && !(m.Shared && c.Op == blk.Write):
		t.enter(hookOf(c), m.Shared)
		t.vol.cache.fill(tab, block, m)
		t.deferCell(cell)
		t.remap(c, m.Block)
		return dm.Remapped
	case err == syscall.ENODATA && c.Op == blk.Read:
		t.enter(hookOf(c), false)
		t.deferCell(cell)
		if t.readUnmapped(c) {
			return dm.Remapped
		}
		c.Complete(blk.OK)
		return dm.Submitted
	case err == nil, err == syscall.ENODATA, err == syscall.EAGAIN:
		t.mu.Lock()
		t.cells = append(t.cells, cell)
		t.mu.Unlock()
		t.pool.wakeFor(t)
		return dm.Submitted
	}
	t.deferCell(cell)
	return dm.Kill
}

// readUnmapped prepares a read of a block that is not mapped: what the origin
// has of it is read from there, the rest is zeroes. It reports whether there is
// anything to read.
func (t *thin) readUnmapped(c *dm.Clone) bool {
	size := uint64(0)
	if t.origin != nil {
		size = t.originSize.Load()
	}
	if c.EndSector() > size {
		c.Zero()
	}
	if c.Sector >= size {
		return false
	}
	c.Sectors = min(c.Sectors, size-c.Sector)
	c.SetDev(t.origin)
	return true
}

// remap directs c to a data block.
func (t *thin) remap(c *dm.Clone, block uint64) {
	_, off := t.split(c.Sector)
	c.SetDev(t.poolDev)
	c.Sector = block*t.blockSectors + off
}

// deferBio hands c over to the owner.
func (t *thin) deferBio(c *dm.Clone) {
	t.mu.Lock()
	t.bios.Push(c)
	t.mu.Unlock()
	t.pool.wakeFor(t)
}

func (t *thin) deferBios(l dm.CloneList) {
	if l.Empty() {
		return
	}
	t.mu.Lock()
	t.bios.Append(&l)
	t.mu.Unlock()
	t.pool.wakeFor(t)
}

// deferCell releases a cell whose holder has gone on; its inmates are deferred.
func (t *thin) deferCell(cell *prison.Cell) {
	t.deferBios(t.pool.prison.ReleaseNoHolder(cell))
}

func (t *thin) takeRetries() dm.CloneList {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.retries.Take()
}

// wakeFor puts t on the list of those that the owner has to look at.
func (p *pool) wakeFor(t *thin) {
	if t.ready.CompareAndSwap(false, true) {
		p.mu.Lock()
		p.ready = append(p.ready, t)
		p.mu.Unlock()
	}
	p.wake()
}

// Presuspend, when it is a noflush one, pushes back all that waits; Postsuspend
// ends that.
func (t *thin) Presuspend() {
	if t.t.NoflushSuspending() {
		t.pool.call(t.startRequeue)
	}
}

func (t *thin) Postsuspend() { t.pool.call(func() { t.requeue.Store(false) }) }

// PresuspendUndo lets a suspend that was given up leave nothing behind.
func (t *thin) PresuspendUndo() { t.Postsuspend() }

func (t *thin) startRequeue() {
	t.requeue.Store(true)
	t.mu.Lock()
	l, cells := t.bios.Take(), t.cells
	l.Append(&t.retries)
	t.cells = nil
	t.mu.Unlock()
	requeueAll(l)
	for _, cell := range cells {
		t.requeueCell(cell)
	}
}

func (t *thin) requeueCell(cell *prison.Cell) { requeueAll(t.pool.prison.Release(cell)) }

// requeueAll ends bios by pushing them back to the core.
func requeueAll(l dm.CloneList) {
	for c := l.Pop(); c != nil; c = l.Pop() {
		hookOf(c).requeue = true
		c.Complete(blk.IOErr)
	}
}

func (t *thin) Preresume() error {
	if t.origin != nil {
		t.originSize.Store(t.origin.Limits().Size)
	}
	return nil
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
