package thin

import (
	"slices"
	"syscall"

	"udm/dm"
	"udm/env"
	"udm/pdata"
	"udm/targets/internal/kcopyd"
)

// pools are the pools of one dm.Control (the kernel's pool table).
type pools struct {
	mu       *env.Mutex
	list     []*pool          // guarded by mu
	throttle *kcopyd.Throttle // guarded by mu; shared by all pools; nil until the first
}

// throttleLocked returns the throttle for the copies of all pools. Called with mu
// held.
func (ps *pools) throttleLocked(t *dm.Target) *kcopyd.Throttle {
	if ps.throttle == nil {
		ps.throttle = kcopyd.NewThrottle(t.Env(), t.Param(throttleParam).Get)
	}
	return ps.throttle
}

type poolsKey struct{}

func poolsOf(t *dm.Target) *pools {
	return t.Shared(poolsKey{}, func() any { return &pools{mu: env.NewMutex(t.Env())} }).(*pools)
}

// of returns the pool of a mapped device, or nil. Called with mu held.
func (ps *pools) of(d *dm.Device) *pool {
	return ps.find(func(p *pool) bool { return p.dev == d })
}

func (ps *pools) find(is func(*pool) bool) *pool {
	i := slices.IndexFunc(ps.list, is)
	if i < 0 {
		return nil
	}
	return ps.list[i]
}

// get returns the pool for a table, creating it if there is none, and takes a
// reference. Called with mu held.
func (ps *pools) get(pt *poolTarget, blockSectors uint64) (p *pool, created bool, err error) {
	p = ps.find(func(p *pool) bool { return p.metaNumber == pt.meta.Number })
	switch {
	case p != nil && p.dev != pt.t.Device():
		return nil, false, dm.Errorf(syscall.EBUSY, "metadata device already in use by a pool")
	case p != nil && p.dataNumber != pt.data.Number:
		return nil, false, dm.Errorf(syscall.EBUSY, "data device already in use by a pool")
	case p == nil && ps.of(pt.t.Device()) != nil:
		return nil, false, invalid("different pool cannot replace a pool")
	case p == nil:
		if p, err = newPool(pt, blockSectors); err != nil {
			return nil, false, dm.Errorf(openErrno(err, pt), "Error creating metadata object: %v", err)
		}
		ps.list = append(ps.list, p)
		created = true
	}
	p.refs++
	return p, created, nil
}

// put undoes get. Called with mu held.
func (ps *pools) put(p *pool) {
	if p.refs--; p.refs > 0 {
		return
	}
	ps.list = slices.DeleteFunc(ps.list, func(o *pool) bool { return o == p })
	p.close()
}

// invalid is EINVAL with one of the kernel's messages.
func invalid(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }

// failed combines a message with the errno of err.
func failed(err error, reason string) error { return dm.Errorf(pdata.ErrnoOf(err), "%s", reason) }

// openErrno is the errno for metadata that cannot be opened. It distinguishes a
// missing superblock from a damaged one.
func openErrno(err error, pt *poolTarget) syscall.Errno {
	return pdata.SuperErrno(pt.t.Env(), pt.meta, err)
}
