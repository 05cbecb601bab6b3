package cache

import (
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/pdata"
	"udm/targets/cache/cachemeta"
	"udm/targets/internal/kcopyd"
)

// stores are the open metadata of one dm.Control.
type stores struct {
	mu       *env.Mutex
	list     map[dm.Number]*store // guarded by mu
	throttle *kcopyd.Throttle     // guarded by mu; nil until the first cache
}

type storesKey struct{}

func storesOf(t *dm.Target) *stores {
	return t.Shared(storesKey{}, func() any {
		return &stores{mu: env.NewMutex(t.Env()), list: map[dm.Number]*store{}}
	}).(*stores)
}

// throttleLocked is the throttle of all caches. Called with mu held.
func (ss *stores) throttleLocked(t *dm.Target) *kcopyd.Throttle {
	if ss.throttle == nil {
		ss.throttle = kcopyd.NewThrottle(t.Env(), t.Param(throttleParam).Get)
	}
	return ss.throttle
}

// store is the metadata of a cache, and the queue whose works alone call it. The tables
// of a device share it: a new one is loaded before the old one is suspended.
type store struct {
	number dm.Number
	device *dm.Device
	refs   int // guarded by stores.mu

	queue    env.Queue
	answered env.Wait
	dev      lower

	lost atomic.Bool // changes under which writes were answered are not on the disk: nothing can be flushed

	md    *cachemeta.Metadata // the owner's
	bound *cache              // the owner's; whose table is live
}

// lower is the metadata device. Every table opens it anew; the one of the live table is
// used.
type lower struct{ dev atomic.Pointer[dm.Dev] }

func (l *lower) Submit(b *blk.Bio) {
	d := l.dev.Load()
	d.Submit(b)
}

func (l *lower) Limits() blk.Limits { return l.dev.Load().Limits() }
func (l *lower) Close() error       { return nil }
func (l *lower) String() string     { return "metadata of a cache" }

// getLocked returns the store for a table, opening it if it is not open, and takes a
// reference. Called with mu held.
func (ss *stores) getLocked(c *cache) (*store, error) {
	st := ss.list[c.meta.Number]
	if st == nil {
		var err error
		if st, err = openStore(c); err != nil {
			return nil, err
		}
		ss.list[st.number] = st
	}
	if st.device != c.t.Device() {
		return nil, dm.Errorf(syscall.EBUSY, "the metadata device is in use by the cache %s", st.device.Name())
	}
	var size uint32
	st.call(func() {
		if st.bound == nil {
			st.dev.dev.Store(c.meta)
		}
		size = st.md.BlockSectors()
	})
	if uint64(size) != c.blockSectors {
		return nil, dm.Because(dm.Errorf(syscall.EINVAL, "the metadata is for blocks of %d sectors", size), "Error creating metadata object")
	}
	st.refs++
	return st, nil
}

func openStore(c *cache) (*store, error) {
	e := c.env
	st := &store{number: c.meta.Number, device: c.t.Device(), answered: e.NewWait()}
	st.dev.dev.Store(c.meta)
	if c.meta.Limits().Size < pdata.BlockSectors {
		return nil, dm.Because(dm.Errorf(syscall.EIO, "the metadata device is too small for a superblock"), "Error creating metadata object")
	}
	version := uint32(1)
	if c.line.Metadata2() {
		version = 2
	}
	var err error
	st.md, err = cachemeta.Open(e, &st.dev, cachemeta.Options{BlockSectors: uint32(c.blockSectors), Version: version, Format: true})
	if err == nil {
		err = st.md.FlushRead()
	}
	if err != nil {
		return nil, dm.Because(dm.Errorf(pdata.SuperErrno(e, c.meta, err), "%v", err), "Error creating metadata object")
	}
	st.queue = e.NewQueue("dm-cache")
	return st, nil
}

// putLocked undoes getLocked. Called with mu held.
func (ss *stores) putLocked(st *store) {
	if st.refs--; st.refs > 0 {
		return
	}
	delete(ss.list, st.number)
	st.queue.Close()
}

// call runs fn on the owner and waits for it.
func (st *store) call(fn func()) { env.Call(st.queue, st.answered, fn) }

// bind makes c's table the one whose devices are used.
func (st *store) bind(c *cache) {
	st.bound = c
	st.dev.dev.Store(c.meta)
	st.md.SetPreCommit(c.flushCopies)
}

// forget undoes bind.
func (st *store) forget(c *cache) {
	if st.bound == c {
		st.bound = nil
	}
}

// mayPassThrough checks that no block is dirty: what the metadata says is old while a
// table is live.
func (st *store) mayPassThrough() error {
	clean, err := true, error(nil)
	if st.bound != nil {
		st.bound.mu.Lock()
		clean = st.bound.dirtied == 0
		st.bound.mu.Unlock()
	} else {
		clean, err = st.md.AllClean()
	}
	switch {
	case err != nil:
		return dm.Because(dm.Errorf(pdata.ErrnoOf(err), "%v", err), "dm_cache_metadata_all_clean() failed")
	case !clean:
		return dm.Errorf(syscall.EBUSY, "Cannot enter passthrough mode unless all blocks are clean")
	}
	return nil
}
