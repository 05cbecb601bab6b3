package mirror

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// The log on a disk, in little-endian:
//
//	0     magic, 4 bytes; version, 4 bytes; number of regions, 8 bytes
//	1024  the clean bits, region 0 in the lowest bit of the first byte, in words of 8 bytes
const (
	magic      = 0x4D695272
	version    = 2
	bitsOffset = 1024
)

// dirtyLog has the bits of all regions. Its methods are called by the owner, except inSync
// and health, which anybody may call.
type dirtyLog struct {
	env       env.Env
	dev       *dm.Dev // nil: the log is in memory only
	sync      Sync
	count     uint64       // of regions
	event     func()       // a table event
	flushLegs func() error // makes the regions durable whose bits are clean

	clean  []uint64
	bits   []atomic.Uint64 // sync
	synced atomic.Uint64   // regions with a sync bit
	search uint64          // regions before it were looked at for recovery
	format uint32          // version that is written
	buf    []byte          // as on the disk

	dirtied, cleaned bool // bits in memory that the disk does not have
	written          bool // the disk has the bits of the last resume, or later ones
	unclean          bool // a flush of the legs failed: nothing becomes clean any more

	failed, unflushed atomic.Bool // of dev: I/O, or a flush
}

// shape sets the number of regions, and checks that the device has room for them.
func (l *dirtyLog) shape(count uint64) error {
	if l.count = count; count > math.MaxUint32 {
		return invalid("there are too many regions")
	}
	if l.dev != nil && l.size() > l.dev.Limits().Size*blk.SectorSize {
		return invalid("the log device " + l.dev.Name() + " is too small")
	}
	return nil
}

func (l *dirtyLog) words() uint64 { return (l.count + 63) / 64 }

// size is the length of the log on the disk in bytes.
func (l *dirtyLog) size() uint64 {
	block := uint64(l.dev.Limits().LogicalBlock)
	return (bitsOffset + l.words()*8 + block - 1) / block * block
}

// make makes the bits as they are before the first resume.
func (l *dirtyLog) make() {
	l.clean, l.bits = make([]uint64, l.words()), make([]atomic.Uint64, l.words())
	for i := range l.clean {
		l.clean[i] = math.MaxUint64
	}
	if l.format = version; l.dev != nil {
		l.buf = make([]byte, l.size())
	}
	if l.sync == InSync {
		for i := range l.bits {
			l.bits[i].Store(math.MaxUint64)
		}
		l.synced.Store(l.count)
	}
}

func (l *dirtyLog) inSync(region uint64) bool { return l.bits[region/64].Load()>>(region%64)&1 != 0 }

// mayCallClean reports whether the disk may call a region clean that is not in sync. Later
// than at a resume none gets out of sync before the disk calls it dirty.
func (l *dirtyLog) mayCallClean() bool { return l.dev != nil && !l.written }

func (l *dirtyLog) health() byte {
	switch {
	case l.unflushed.Load():
		return 'F'
	case l.failed.Load():
		return 'D'
	}
	return 'A'
}

func (l *dirtyLog) markDirty(region uint64) {
	l.clean[region/64] &^= 1 << (region % 64)
	l.dirtied = true
}

func (l *dirtyLog) markClean(region uint64) {
	if !l.unclean {
		l.clean[region/64] |= 1 << (region % 64)
		l.cleaned = true
	}
}

func (l *dirtyLog) setSync(region uint64, on bool) {
	mask := uint64(1) << (region % 64)
	if on {
		if l.bits[region/64].Or(mask)&mask == 0 {
			l.synced.Add(1)
		}
	} else if l.bits[region/64].And(^mask)&mask != 0 {
		l.synced.Add(^uint64(0))
	}
}

// next finds a region that is not in sync, and goes on behind it the next time.
func (l *dirtyLog) next() (region uint64, ok bool) {
	for l.search < l.count {
		i, shift := l.search/64, l.search%64
		missing := ^l.bits[i].Load() >> shift << shift
		if missing == 0 {
			l.search = (i + 1) * 64
			continue
		}
		region = i*64 + uint64(bits.TrailingZeros64(missing))
		l.search = region + 1
		return region, region < l.count
	}
	return 0, false
}

// resume reads the log. If that fails, no region is in sync unless the table says so.
func (l *dirtyLog) resume() error {
	l.search = 0
	if l.dev == nil {
		return nil
	}
	known, err := l.read()
	if err != nil {
		l.fail()
	}
	l.fill(known)
	n := 0
	for i, w := range l.clean {
		l.bits[i].Store(w)
		n += bits.OnesCount64(w)
	}
	l.synced.Store(uint64(n))
	l.dirtied, l.cleaned, l.written = true, false, false
	if failed := l.write(); err == nil {
		err = failed
	}
	return err
}

// fill sets the bits of regions that the log on the disk does not have, and clears those
// that are not regions.
func (l *dirtyLog) fill(known uint64) {
	for i := known; i < l.count; i++ {
		if mask := uint64(1) << (i % 64); l.sync == InSync {
			l.clean[i/64] |= mask
		} else {
			l.clean[i/64] &^= mask
		}
	}
	if n := l.count % 64; n != 0 {
		l.clean[len(l.clean)-1] &= 1<<n - 1
	}
}

// read reads the clean bits, and returns how many of them count.
func (l *dirtyLog) read() (known uint64, err error) {
	if err := l.transfer(blk.Read); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	for i := range l.clean {
		l.clean[i] = le.Uint64(l.buf[bitsOffset+8*i:])
	}
	l.format = version
	if l.sync != AsLogged || le.Uint32(l.buf) != magic {
		return 0, nil
	}
	if v := le.Uint32(l.buf[4:]); v != version && v != 1 {
		l.format = v // of a later version, which must not take it for an older one
		return 0, invalid("incompatible disk log version")
	}
	return le.Uint64(l.buf[8:]), nil
}

// flush brings the disk up to date. NoSpace: it has to be done again.
func (l *dirtyLog) flush() error {
	if l.dev == nil || !l.dirtied && !l.cleaned {
		return nil
	}
	if l.cleaned {
		l.beforeClean()
	}
	return l.write()
}

// beforeClean flushes the legs before clean bits are written. If that fails, it is not
// known what is clean.
func (l *dirtyLog) beforeClean() {
	err := l.flushLegs()
	if err == nil {
		return
	}
	l.unclean = l.unclean || err != blk.NoSpace
	clear(l.clean)
	l.dirtied = true
}

func (l *dirtyLog) write() error {
	le := binary.LittleEndian
	le.PutUint32(l.buf, magic)
	le.PutUint32(l.buf[4:], l.format)
	le.PutUint64(l.buf[8:], l.count)
	for i, w := range l.clean {
		le.PutUint64(l.buf[bitsOffset+8*i:], w)
	}
	err := l.transfer(blk.Write)
	if err == nil && l.dirtied {
		if err = blk.FlushDevice(l.env, l.dev); err != nil && err != blk.NoSpace {
			l.unflushed.Store(true)
		}
	}
	switch err {
	case nil:
		l.written = l.written || l.dirtied // and flushed
		l.dirtied, l.cleaned = false, false
	case blk.NoSpace:
	default:
		l.fail()
	}
	return err
}

// transfer reads or writes the log, in parts that the device takes.
func (l *dirtyLog) transfer(op blk.Op) error {
	most := len(l.buf)
	if n := int(l.dev.Limits().MaxSectors); n != 0 {
		most = min(most, n*blk.SectorSize)
	}
	sector := uint64(0)
	for p := range slices.Chunk(l.buf, most) {
		b := &blk.Bio{Op: op, Sector: sector}
		b.SetData(p)
		if err := blk.Do(l.env, l.dev, b).Err(); err != nil {
			return err
		}
		sector += uint64(len(p)) / blk.SectorSize
	}
	return nil
}

func (l *dirtyLog) fail() {
	if !l.failed.Swap(true) {
		l.event()
	}
}
