package rbddev

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"udm/blk"
)

// The states in which every bio ends with Offline.
const (
	blocklisted = "blocklisted"
	lockLost    = "lock lost"
)

// lostLocked takes the device offline if an error tells that the image is another client's
// now, and reports whether it does.
func (d *Device) lostLocked(n syscall.Errno) bool {
	switch {
	case d.state != "":
	case n == syscall.ESHUTDOWN:
		d.state, d.why = blocklisted, "the cluster has shut this client out, because another one took the image over; restart the daemon once the image is free"
	case n == syscall.EROFS && !d.limits.ReadOnly:
		d.state, d.why = lockLost, "another client has taken the image's lock; restart the daemon once the image is free"
	}
	return d.state != ""
}

// lookAtLock finds out whether this client may still write, in case there is no I/O that
// would tell.
func (d *Device) lookAtLock() {
	var n syscall.Errno
	errors.As(d.img.check(), &n)
	d.mu.Lock()
	lost := d.lostLocked(n)
	d.mu.Unlock()
	if lost {
		d.room.Wake()
		return
	}
	d.looks.QueueAfter(d.look, checkTime)
}

// readSize adopts the present size. One that cannot be read stays.
func (d *Device) readSize() {
	if n, err := d.img.size(); err == nil {
		d.size.Store(n)
	}
}

// Report implements [blk.Reporter].
func (d *Device) Report() blk.Report {
	now := d.env.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	r := blk.Report{State: "connected", UnderWay: Depth - len(d.idle), Connections: 1}
	oldest := now
	for i := range d.slots {
		if d.slots[i].bio != nil {
			oldest = min(oldest, d.slots[i].since)
		}
	}
	switch {
	case d.state != "":
		r.State, r.Why, r.Connections = d.state, d.why, 0
	case now-oldest >= patience:
		r.State, r.Why = "waiting", fmt.Sprintf("a request has had no answer for %v; look at ceph health", (now-oldest).Truncate(time.Second))
	}
	return r
}

// Extents is the image's allocation map.
func (d *Device) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	d.mu.Lock()
	ok := d.state == "" && !d.closing
	if ok {
		d.asking++
	}
	d.mu.Unlock()
	if !ok {
		return nil, blk.Offline
	}
	list, err := d.img.extents(sector, sectors)
	d.mu.Lock()
	d.asking--
	d.mu.Unlock()
	d.room.Wake()
	return list, err
}

// maxExtents bounds an answer about extents.
const maxExtents = 1024

// allocated is an allocation map that is being made.
type allocated struct {
	list    []blk.Extent
	at, end uint64 // sectors; the map goes up to at
}

// add adds bytes that hold data, behind what was added before; false: no more is wanted.
// Parts of sectors count as whole ones.
func (a *allocated) add(off, n uint64) bool {
	if len(a.list) >= maxExtents {
		return false
	}
	from := min(max(off/blk.SectorSize, a.at), a.end)
	to := min(max((off+n+blk.SectorSize-1)/blk.SectorSize, from), a.end)
	a.list = blk.AppendExtent(a.list, blk.Extent{Sector: a.at, Sectors: from - a.at})
	a.list = blk.AppendExtent(a.list, blk.Extent{Sector: from, Sectors: to - from, Data: true})
	a.at = to
	return true
}

// finish returns the map. The rest is a hole, if all data was added.
func (a *allocated) finish(all bool) []blk.Extent {
	if all {
		a.list = blk.AppendExtent(a.list, blk.Extent{Sector: a.at, Sectors: a.end - a.at})
	}
	return a.list
}
