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

// features are the features in a pool's table, or those in force.
type features struct {
	readOnly       bool
	zero           bool // zero new blocks
	discard        bool
	passdown       bool // discards reach the data device
	errorIfNoSpace bool
}

// pool is shared by all tables of one pool device and all thins of the pool (struct
// pool). Each part below states who owns it.
type pool struct {
	env                    env.Env
	dev                    *dm.Device
	metaNumber, dataNumber dm.Number
	blockSectors           uint64
	noSpaceTimeout         *dm.Param // seconds; read when the pool runs out of space
	deleteMost             *dm.Param // mappings of deleted volumes that a pass removes

	md         *thinmeta.Metadata
	meta, data lower
	prison     *prison.Prison
	copier     *kcopyd.Client
	filler     filler
	allIO      *deferredset.Set // mapped I/O in flight
	sharedIO   *deferredset.Set // reads of shared blocks in flight

	owner       owner
	published   published
	settings    settings
	transaction transaction
	writing     writing
	short       shortage
	next        next
	inbox       inbox
	tests       hooks

	volumes  map[uint32]*volume // owned by the owner, like all below
	deleting bool               // mappings of deleted volumes may be left
	spare    []*mapping         // for reuse
	// preparing is how many blocks are being prepared.
	preparing int
	scratch   []*dm.Clone
	ranges    []thinmeta.Range // scratch space of unmapSome

	refs    int           // guarded by pools.mu; targets of both types
	targets []*poolTarget // the owner's; tables of the pool
}

// owner is the queue whose works make all changes to the pool.
type owner struct {
	queue    env.Queue
	worker   *env.Work // pass
	waker    *env.Work // tick
	timeout  *env.Work // noSpaceTimedOut
	answered env.Wait  // wakes when a call is done
}

// published is pool state that the owner publishes to everybody.
type published struct {
	commits  commits
	mode     atomic.Uint32 // a mode
	discards atomic.Bool   // features.discard
	sectors  atomic.Uint64 // of the whole blocks of the bound target
	caches   budget
}

// settings are the settings of the table in force. Owned by the owner.
type settings struct {
	bound      *poolTarget // the table in force, or nil
	features   features
	lowWater   uint64
	lowWaterOn bool // the event has been raised
	outOfData  bool
}

// transaction is the state of the current metadata transaction. Owned by the owner.
type transaction struct {
	lastCommit time.Duration
	freed      bool         // data blocks became free
	changed    []*volume    // volumes whose changed flag is set
	flushes    dm.CloneList // to be issued after the commit
	completed  dm.CloneList // to be completed after the commit
	aborts     uint64       // number of aborted transactions
}

// next is work that one part of a pass leaves to a later part. Owned by the owner.
type next struct {
	idle   []*mapping // discards with blocks to unmap
	missed bool       // readers of the metadata may be behind: a read reached the owner
}

// inbox is work that other goroutines leave for the owner. Guarded by mu.
type inbox struct {
	mu        sync.Mutex
	suspended bool
	held      []*dm.Device // devices of thins that were suspended together with the pool
	active    []*thin
	ready     []*thin    // have deferred bios or cells
	prepared  []*mapping // to insert
	quiesced  []*mapping // discards whose blocks are idle
	passed    []*mapping // discards that the data device has completed
}

// hooks are for tests; each may be nil.
type hooks struct {
	afterRelease func() // after a cell is released, before its bios are issued
	beforeEnter  func() // with invariants on: between a cache hit and the deferred-set entry
	afterVisit   func() // within the release of a cell, after its bios are counted
}

// lower is a device below a pool. Every table of the pool opens the device anew; the
// pool uses the one opened by the table in force.
type lower struct{ dev atomic.Pointer[dm.Dev] }

func (l *lower) Submit(b *blk.Bio) {
	if d := l.dev.Load(); d != nil {
		d.Submit(b)
		return
	}
	b.Complete(blk.Offline)
}

func (l *lower) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	d := l.dev.Load()
	if d == nil {
		return blk.AllData(sector, sectors), nil
	}
	return blk.ExtentsOf(d.Device, sector, sectors), nil
}

func (l *lower) Limits() blk.Limits {
	if d := l.dev.Load(); d != nil {
		return d.Limits()
	}
	return blk.DefaultLimits(0)
}

func (l *lower) Close() error   { return nil }
func (l *lower) String() string { return "thin-pool device" }

// newPool creates the pool for a table whose devices are open.
func newPool(pt *poolTarget, blockSectors uint64) (*pool, error) {
	if pt.metadataBlocks() == 0 {
		// Avoids a read beyond the end, and one that would wait for a table.
		return nil, dm.Errorf(syscall.EIO, "the metadata device is too small for a superblock")
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
	p.published.discards.Store(true)
	p.published.caches.setDefaults()
	p.take(pt)
	var err error
	p.md, err = thinmeta.Open(e, &p.meta, thinmeta.Options{DataBlockSize: uint32(blockSectors), Format: !pt.requested.readOnly})
	if err == nil && !pt.requested.readOnly {
		err = p.md.FlushRead()
	}
	if err != nil {
		return nil, err
	}
	p.owner.queue = e.NewQueue("dm-thin")
	p.owner.worker, p.owner.waker, p.owner.timeout = env.NewWork(p.pass), env.NewWork(p.tick), env.NewWork(p.noSpaceTimedOut)
	p.initCommit()
	p.copier = kcopyd.New(e, kcopyd.Options{Name: "thin", Throttle: pt.pools.throttleLocked(pt.t)})
	p.initFiller()
	p.md.SetPreCommit(p.flushData)
	return p, nil
}

// flushData flushes the data device. A data device without a table has nothing to
// flush, and a flush would wait until it gets one.
func (p *pool) flushData() error {
	if d := p.data.dev.Load(); d != nil && d.Limits().Size == 0 {
		return nil
	}
	return blk.FlushDevice(p.env, &p.data)
}

// close ends the pool. No target uses it any more.
func (p *pool) close() {
	p.filler.queue.Close()
	p.copier.Close()
	// The last table was suspended, which committed. Errors in writing the rest have
	// been reported by then.
	p.call(func() {
		p.markCheck()
		_ = p.md.Close()
	})
	p.owner.queue.Close()
	p.writing.queue.Close()
}

// call runs fn on the owner and waits for it.
func (p *pool) call(fn func()) {
	env.Call(p.owner.queue, p.owner.answered, func() {
		p.awaitCommit()
		fn()
	})
}

// wake schedules a pass.
func (p *pool) wake() { p.owner.queue.Queue(p.owner.worker) }

// tick makes a pass at least once a second, for the commit at its end.
func (p *pool) tick() {
	p.tryAgain()
	p.wake()
	p.owner.queue.QueueAfter(p.owner.waker, commitPeriod)
}

// log logs events of the pool, with the pool device's name while a table is in force.
func (p *pool) log() *slog.Logger {
	if p.settings.bound == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.settings.bound.t.Log()
}

// metadataLow is called during a metadata change that allocated a block.
func (p *pool) metadataLow() {
	p.log().Warn("free metadata blocks have reached the threshold")
	p.event()
}

// event raises an event on the pool device.
func (p *pool) event() {
	if p.settings.bound != nil {
		p.settings.bound.t.Event()
	}
}

// take makes the devices of pt those of the pool.
func (p *pool) take(pt *poolTarget) {
	p.meta.dev.Store(pt.meta)
	p.data.dev.Store(pt.data)
}

// forget is called when the table of pt is closed.
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

// activeThins returns a copy of the list of active thins.
func (p *pool) activeThins() []*thin {
	p.inbox.mu.Lock()
	defer p.inbox.mu.Unlock()
	return slices.Clone(p.inbox.active)
}

// errorRetries fails the bios that wait for space.
func (p *pool) errorRetries(st blk.Status) {
	for _, t := range p.activeThins() {
		endAll(t.takeRetries(), st)
	}
}

// retryAll gives the bios that wait for space to the owner again.
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

// volume is shared by all thin targets with one id.
type volume struct {
	id    uint32
	td    *thinmeta.Thin // anybody may call TryFind, only the owner the rest
	users int
	cache cache

	// changed is set before the volume is changed and cleared after a commit. While
	// it is clear, every visible mapping is durable, and flushes and FUA writes need
	// no commit. Written by the owner.
	changed atomic.Bool
}

// change must be called before a volume's metadata is changed.
func (p *pool) change(v *volume) {
	if !v.changed.Load() {
		v.changed.Store(true)
		p.transaction.changed = append(p.transaction.changed, v)
	}
}

// openVolume takes a reference to the volume.
func (p *pool) openVolume(id uint32) (*volume, error) {
	v := p.volumes[id]
	if v == nil {
		td, err := p.md.OpenThin(id)
		if err != nil {
			return nil, err
		}
		v = &volume{id: id, td: td}
		v.cache.init(&p.published.caches)
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
