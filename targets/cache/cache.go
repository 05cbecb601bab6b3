package cache

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/cache/cachemeta"
	"udm/targets/cache/internal/smq"
	"udm/targets/internal/deferredset"
	"udm/targets/internal/kcopyd"
)

const (
	commitPeriod     = time.Second
	defaultThreshold = 2048
	maxDiscardBlocks = 1 << 14
)

// cache is a cache line of a table (struct cache).
type cache struct {
	t            *dm.Target
	env          env.Env
	line         *Line
	mode         Mode
	policyName   string
	passdown     bool
	store        *store
	stores       *stores
	fast, origin *dm.Dev
	meta         *dm.Dev
	fastCopy     *kcopyd.Dev
	originCopy   *kcopyd.Dev
	copier       *kcopyd.Client

	blockSectors   uint64
	blockShift     int    // -1: no power of two
	originSectors  uint64 // as long as the table, also if the origin is longer
	originBlocks   uint64 // whole ones
	discardSectors uint64

	// Bios in flight to the block that they were mapped to: see the package comment.
	reads, writes *deferredset.Set

	busy      atomic.Int64 // sectors in flight
	used      atomic.Bool  // I/O has ended since the worker looked
	threshold atomic.Int64 // sectors that may be copied at a time

	demotions, promotions atomic.Uint32

	worker, waker *env.Work
	unused        bool     // the worker's; there was no I/O in the second before its last look
	quiet         env.Wait // wakes when migrations have ended

	mu        sync.Mutex
	policy    *smq.Policy           // guarded by mu
	ticking   bool                  // guarded by mu; a miss is to tick the policy when it ends
	blocks    uint32                // guarded by mu; of the cache
	locks     map[uint64]*migration // guarded by mu; by block of the origin
	stats     cachemeta.Stats       // guarded by mu; hits and misses, which are saved
	dirty     []uint64              // guarded by mu; bits
	dirtied   int                   // guarded by mu; bits set in dirty
	discards  []uint64              // guarded by mu; bits
	changed   bool                  // guarded by mu; the metadata has changed since the last commit
	readOnly  bool                  // guarded by mu; the metadata cannot be changed
	begun     bool                  // guarded by mu; the disk says that the cache is in use, so that it may be written
	stopped   bool                  // guarded by mu; no migration begins
	migrating int                   // guarded by mu; of all kinds
	unsaved   int                   // guarded by mu; migrations whose commit has found no space
	copying   int                   // guarded by mu; in the background
	ready     []*migration          // guarded by mu; whose next step is the owner's
	deferred  dm.CloneList          // guarded by mu; to be issued after a commit

	// The owner's.
	loaded     bool
	committing []*migration // go on after the commit
	answers    dm.CloneList // to be ended after the commit
	lastCommit time.Duration
	pauseUntil time.Duration // nothing begins in the background after a failure
	flushFast  bool          // blocks were copied there since its last flush
	flushOrig  bool
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	l, wrong := parseLine(args)
	c := &cache{t: t, env: t.Env(), line: l, mode: l.Mode(), stores: storesOf(t), stopped: true, locks: map[uint64]*migration{}}
	if err := c.open(l); err != nil {
		return nil, err
	}
	if wrong != nil {
		return nil, wrong
	}
	if err := c.take(l); err != nil {
		return nil, err
	}
	c.stores.mu.Lock()
	defer c.stores.mu.Unlock()
	if err := c.attach(); err != nil {
		return nil, err
	}
	t.NumFlush, t.FlushSupported = 2, true
	t.NumDiscard, t.DiscardsSupported = 1, true
	t.MaxIOLen = c.blockSectors
	return c, nil
}

// open opens the devices of a line, as far as it names them.
func (c *cache) open(l *Line) (err error) {
	for _, d := range []struct {
		name, what string
		to         **dm.Dev
	}{{l.Metadata, "metadata", &c.meta}, {l.Cache, "cache", &c.fast}, {l.Origin, "origin", &c.origin}} {
		if d.name == "" {
			return invalid("Insufficient args")
		}
		if *d.to, err = c.t.Open(d.name, true); err != nil {
			return dm.Errorf(dm.ErrnoOf(err), "Error opening %s device", d.what)
		}
	}
	if c.originSectors = c.t.Len; c.originSectors > c.origin.Limits().Size {
		return invalid("Device size larger than cached device")
	}
	return nil
}

// take stores the settings of a line.
func (c *cache) take(l *Line) error {
	bs := l.BlockSectors
	if bs > c.fast.Limits().Size {
		return invalid("Data block size is larger than the cache device")
	}
	c.blockSectors, c.blockShift = bs, -1
	if bits.OnesCount64(bs) == 1 {
		c.blockShift = bits.TrailingZeros64(bs)
	}
	c.originBlocks = c.originSectors / bs
	c.blocks = c.blocksNow()
	var ok bool
	if c.policyName, ok = policyName(l.Policy); !ok {
		return dm.Because(dm.Errorf(syscall.EINVAL, "udm has no policy %s; it has smq, mq and cleaner", l.Policy), "Error creating cache's policy")
	}
	c.threshold.Store(defaultThreshold)
	if len(l.PolicyArgs)%2 != 0 {
		return invalid("Error setting cache policy's config values")
	}
	for i := 0; i < len(l.PolicyArgs); i += 2 {
		if err := c.configure(l.PolicyArgs[i], l.PolicyArgs[i+1]); err != nil {
			return dm.Because(err, "Error setting cache policy's config values")
		}
	}
	c.discardSectors = bs
	for c.originSectors/c.discardSectors > maxDiscardBlocks {
		c.discardSectors *= 2
	}
	most := c.origin.Limits().MaxDiscard
	c.passdown = !l.NoPassdown() && most >= bs
	return nil
}

// blocksNow is the present size of the cache device in blocks.
func (c *cache) blocksNow() uint32 {
	return uint32(min(c.fast.Limits().Size/c.blockSectors, 1<<31-1))
}

// discardBlocks is the number of blocks in which discards are remembered.
func (c *cache) discardBlocks() uint64 {
	return (c.originSectors + c.discardSectors - 1) / c.discardSectors
}

// attach opens the metadata, or takes those of the table that this one replaces. Called
// with stores.mu held.
func (c *cache) attach() error {
	st, err := c.stores.getLocked(c)
	if err != nil {
		return err
	}
	c.store = st
	err = c.mayUse()
	if err != nil {
		c.stores.putLocked(st)
		return err
	}
	c.reads, c.writes = deferredset.New(), deferredset.New()
	c.fastCopy, c.originCopy = kcopyd.Open(c.fast), kcopyd.Open(c.origin)
	c.copier = kcopyd.New(c.env, kcopyd.Options{Name: "cache", Throttle: c.stores.throttleLocked(c.t)})
	c.worker, c.waker = env.NewWork(c.pass), env.NewWork(c.periodic)
	c.used.Store(true) // so that a second of quiet comes before work that wants that
	c.quiet = c.env.NewWait()
	c.policy = c.newPolicy()
	c.discards = make([]uint64, (c.discardBlocks()+63)/64)
	c.dirty = make([]uint64, (c.blocks+63)/64)
	return nil
}

// mayUse checks whether the metadata can be used as the line wants.
func (c *cache) mayUse() (err error) {
	c.store.call(func() {
		md := c.store.md
		c.mu.Lock()
		c.stats = md.Stats()
		c.mu.Unlock()
		switch {
		case md.Failed(), md.NeedsCheck():
			err = invalid("Unable to get write access to metadata, please check/repair metadata.")
		case c.mode == Passthrough:
			err = c.store.mayPassThrough()
		}
	})
	return err
}

// Close is called when no I/O is in flight and the table, if it was live, is suspended.
func (c *cache) Close() {
	c.stores.mu.Lock()
	defer c.stores.mu.Unlock()
	c.copier.Close()
	c.store.queue.Cancel(c.waker)
	c.store.call(func() {
		if c.store.bound == c {
			_ = c.commit() // if the last attempt has found no space
		}
		c.store.forget(c)
	})
	c.store.queue.Cancel(c.worker)
	c.stores.putLocked(c.store)
}

func (c *cache) Areas() []dm.Area {
	return []dm.Area{{Dev: c.fast, Len: c.fast.Limits().Size}, {Dev: c.origin, Len: c.t.Len}}
}

// Uncommitted reports whether the metadata have changed since the last commit.
func (c *cache) Uncommitted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed || c.store.lost.Load()
}

// Hint makes whole blocks the preferred I/O size, unless the devices prefer a multiple of
// them.
func (c *cache) Hint(l *blk.Limits) {
	l.ProcessCache = true // mappings of blocks that came into the cache are committed later
	bs := uint32(c.blockSectors * blk.SectorSize)
	if l.OptIO < bs || l.OptIO%bs != 0 {
		l.MinIO = max(bs, l.PhysicalBlock)
		l.OptIO = bs
	}
	if c.passdown {
		o := c.origin.Limits()
		l.MaxDiscard, l.DiscardGranularity = o.MaxDiscard, o.DiscardGranularity
		return
	}
	l.MaxDiscard = min(c.discardSectors*1024, c.originSectors)
	l.DiscardGranularity = uint32(min(c.discardSectors*blk.SectorSize, 1<<31))
}
