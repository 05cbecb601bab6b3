package thin

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/deferredset"
	"udm/targets/internal/kcopyd"
	"udm/targets/internal/prison"
	"udm/targets/thin/thinmeta"
)

const commitPeriod = time.Second

// features are the words of a pool's table, or what became of them.
type features struct {
	readOnly       bool
	zero           bool // zero new blocks
	discard        bool
	passdown       bool // discards reach the data device
	errorIfNoSpace bool
}

// pool is what all tables of one pool device and all thins of the pool share
// (struct pool). Its parts say who owns what is in them.
type pool struct {
	env                    env.Env
	dev                    *dm.Device
	metaNumber, dataNumber dm.Number
	blockSectors           uint64
	noSpaceTimeout         *dm.Param // seconds; looked at when the pool runs out of space
	deleteMost             *dm.Param // mappings of deleted volumes that are removed at once

	md         *thinmeta.Metadata
	meta, data lower
	prison     *prison.Prison
	copier     *kcopyd.Client
	allIO      *deferredset.Set // mapped I/O in flight
	sharedIO   *deferredset.Set // reads of shared blocks in flight

	owner       owner
	told        told
	settings    settings
	transaction transaction
	short       shortage
	next        next
	inbox       inbox
	tests       hooks

	volumes  map[uint32]*volume // the owner's
	deleting bool               // the owner's; mappings of deleted volumes are left, perhaps
	spare    []*mapping         // the owner's; to be used again
	// preparing is how many blocks are being prepared. The owner's.
	preparing int
	scratch   []*dm.Clone      // the owner's
	ranges    []thinmeta.Range // the owner's; what unmapSome has found

	refs    int           // guarded by pools.mu; targets of both types
	targets []*poolTarget // the owner's; the pool's tables
}

// owner is the queue whose works alone change the pool.
type owner struct {
	queue    env.Queue
	worker   *env.Work // pass
	waker    *env.Work // tick
	timeout  *env.Work // noSpaceTimedOut
	answered env.Wait  // wakes when a call is done
}

// told is what the owner tells everybody.
type told struct {
	mode     atomic.Uint32 // a mode
	discards atomic.Bool   // features.discard
	sectors  atomic.Uint64 // of the bound target, as far as they make whole blocks
	caches   budget
}

// settings are what the table in force says and what became of it. The owner's.
type settings struct {
	bound      *poolTarget // whose features are in force; nil: none
	features   features
	lowWater   uint64
	lowWaterOn bool // an event has been sent
	outOfData  bool
}

// transaction is what waits for the next commit, or was done since the last one.
// The owner's.
type transaction struct {
	lastCommit time.Duration
	freed      bool         // data blocks that no thin used have become free
	changed    []*volume    // whose changed is set
	flushes    dm.CloneList // to be issued
	completed  dm.CloneList // to be ended
	aborts     uint64       // counts the transactions that were thrown away
}

// next is what one part of a pass leaves to its end. The owner's.
type next struct {
	instant []*mapping // to insert: nothing to prepare
	idle    []*mapping // discards that are to unmap blocks
	missed  bool       // a read came to the owner because readers of the metadata are behind, perhaps
}

// inbox is what everybody leaves for the owner. Guarded by mu.
type inbox struct {
	mu        sync.Mutex
	suspended bool
	held      []*dm.Device // of thins, suspended together with the pool
	active    []*thin
	ready     []*thin    // have deferred bios or cells
	prepared  []*mapping // to insert
	quiesced  []*mapping // discards whose blocks have become idle
	passed    []*mapping // discards that the data device has done
}

// hooks are for tests; they may be nil.
type hooks struct {
	afterRelease func() // between the release of a cell and the issue of its bios
	beforeEnter  func() // with invariants on: between a hit in the cache and its deferred-set entry
	afterVisit   func() // within the release of a cell, when its bios have been counted
}

// lower is a device below a pool. Every table of the pool opens it anew; the
// pool uses what the bound table has opened.
type lower struct{ dev atomic.Pointer[dm.Dev] }

func (l *lower) Submit(b *blk.Bio) {
	if d := l.dev.Load(); d != nil {
		d.Submit(b)
		return
	}
	b.Complete(blk.Offline)
}

func (l *lower) Limits() blk.Limits {
	if d := l.dev.Load(); d != nil {
		return d.Limits()
	}
	return blk.DefaultLimits(0)
}

func (l *lower) Close() error   { return nil }
func (l *lower) String() string { return "thin-pool device" }

// newPool makes the pool object for a table whose devices are open.
func newPool(pt *poolTarget, blockSectors uint64) (*pool, error) {
	if pt.metadataBlocks() == 0 {
		// A read would fail beyond the end; without a table it would wait for one.
		return nil, dm.Errorf(syscall.EIO, "the metadata device has no room for a superblock")
	}
	e := pt.t.Env()
	p := &pool{
		env: e, dev: pt.t.Device(), metaNumber: pt.meta.Number, dataNumber: pt.data.Number,
		blockSectors: blockSectors, noSpaceTimeout: pt.t.Param(noSpaceParam), deleteMost: pt.t.Param(deleteParam),
		prison: prison.New(), allIO: deferredset.New(), sharedIO: deferredset.New(),
		volumes: make(map[uint32]*volume),
	}
	p.owner.answered, p.inbox.suspended, p.transaction.lastCommit = e.NewWait(), true, e.Now()
	p.settings.features = features{zero: true, discard: true, passdown: true}
	p.told.discards.Store(true)
	p.told.caches.setDefaults()
	p.take(pt)
	var err error
	p.md, err = thinmeta.Open(e, &p.meta, thinmeta.Options{DataBlockSize: uint32(blockSectors), Format: !pt.requested.readOnly})
	if err != nil {
		return nil, err
	}
	p.owner.queue = e.NewQueue("dm-thin")
	p.owner.worker, p.owner.waker, p.owner.timeout = env.NewWork(p.pass), env.NewWork(p.tick), env.NewWork(p.noSpaceTimedOut)
	p.copier = kcopyd.New(e, kcopyd.Options{Name: "thin", Throttle: pt.pools.throttleLocked(pt.t)})
	p.md.SetPreCommit(p.flushData)
	return p, nil
}

// flushData flushes the data device. One without a table has nothing to flush, and
// would hold the flush until it gets one.
func (p *pool) flushData() error {
	if d := p.data.dev.Load(); d != nil && d.Limits().Size == 0 {
		return nil
	}
	return blk.FlushDevice(p.env, &p.data)
}

// close ends the pool: no target uses it any more.
func (p *pool) close() {
	p.copier.Close()
	// The last table has been suspended, which committed. What cannot be
	// written now has been reported by then.
	p.call(func() {
		p.markCheck()
		_ = p.md.Close()
	})
	p.owner.queue.Close()
}

// call runs fn on the owner and waits for it.
func (p *pool) call(fn func()) {
	var done atomic.Bool
	p.owner.queue.Queue(env.NewWork(func() {
		fn()
		done.Store(true)
		p.owner.answered.Wake()
	}))
	p.owner.answered.Until(done.Load)
}

// wake lets the owner make a pass.
func (p *pool) wake() { p.owner.queue.Queue(p.owner.worker) }

// tick makes a pass at least every second, for the commit at its end.
func (p *pool) tick() {
	p.tryAgain()
	p.wake()
	p.owner.queue.QueueAfter(p.owner.waker, commitPeriod)
}

// log is for what users of the pool should know. It goes by the pool device's
// name while there is a table in force.
func (p *pool) log() *slog.Logger {
	if p.settings.bound == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.settings.bound.t.Log()
}

// metadataLow is called in the middle of a change that has taken a block.
func (p *pool) metadataLow() {
	p.log().Warn("the free metadata blocks have come down to the threshold")
	p.event()
}

// event raises an event on the pool device.
func (p *pool) event() {
	if p.settings.bound != nil {
		p.settings.bound.t.Event()
	}
}

// take makes pt's devices the pool's.
func (p *pool) take(pt *poolTarget) {
	p.meta.dev.Store(pt.meta)
	p.data.dev.Store(pt.data)
}

// forget is called when the table of pt goes away.
func (p *pool) forget(pt *poolTarget) {
	p.targets = slices.DeleteFunc(p.targets, func(o *poolTarget) bool { return o == pt })
	if p.settings.bound == pt {
		p.settings.bound = nil
	}
	if p.meta.dev.Load() != pt.meta {
		return
	}
	p.meta.dev.Store(nil)
	p.data.dev.Store(nil)
	if n := len(p.targets); n > 0 {
		p.take(p.targets[n-1])
	}
}

// activeThins is a copy of the list.
func (p *pool) activeThins() []*thin {
	p.inbox.mu.Lock()
	defer p.inbox.mu.Unlock()
	return slices.Clone(p.inbox.active)
}

// errorRetries ends the bios that wait for space.
func (p *pool) errorRetries(st blk.Status) {
	for _, t := range p.activeThins() {
		endAll(t.takeRetries(), st)
	}
}

// retryAll defers the bios that wait for space once more.
func (p *pool) retryAll() {
	for _, t := range p.activeThins() {
		t.deferBios(t.takeRetries())
	}
}

func endAll(l dm.CloneList, st blk.Status) {
	for c := l.Pop(); c != nil; c = l.Pop() {
		c.Complete(st)
	}
}

func (p *pool) clearCaches() {
	for _, v := range p.volumes {
		v.cache.clear()
	}
}

// volume is what all thin targets with one id share.
type volume struct {
	id    uint32
	td    *thinmeta.Thin // TryFind is for anybody, the rest for the owner
	users int
	cache cache

	// changed is set before the volume is changed and cleared after a commit:
	// while it is not set, every mapping that can be seen is durable, and
	// flushes and FUA writes need no commit. Written by the owner.
	changed atomic.Bool
}

// change is called before a volume's metadata are changed.
func (p *pool) change(v *volume) {
	if !v.changed.Load() {
		v.changed.Store(true)
		p.transaction.changed = append(p.transaction.changed, v)
	}
}

// settle tells volumes what is durable now.
func (p *pool) settle() {
	p.transaction.freed, p.transaction.lastCommit = false, p.env.Now()
	for _, v := range p.transaction.changed {
		v.changed.Store(v.td.Changed())
	}
	clear(p.transaction.changed)
	p.transaction.changed = p.transaction.changed[:0]
}

// openVolume counts one more user of the volume.
func (p *pool) openVolume(id uint32) (*volume, error) {
	v := p.volumes[id]
	if v == nil {
		td, err := p.md.OpenThin(id)
		if err != nil {
			return nil, err
		}
		v = &volume{id: id, td: td}
		v.cache.init(&p.told.caches)
		v.changed.Store(td.Changed())
		p.volumes[id] = v
	}
	v.users++
	return v, nil
}

func (p *pool) closeVolume(v *volume) {
	if v.users--; v.users > 0 {
		return
	}
	delete(p.volumes, v.id)
	v.cache.drop()
	v.td.Close()
}
