// Package clone is the target "clone": it copies a source to a destination while the
// copy is in use (drivers/md/dm-clone-target.c). The manual is [Type]'s Doc; package
// clonemeta is the metadata.
//
// # Life of a bio
//
// A region that is on the destination is hydrated. The map of regions in memory has a bit
// for each; bits are only ever set.
//
//	Map ─ flush, FUA ─ regions were hydrated since the last commit ─► waits for a commit
//	 ├─ discard ──────────────────────────────────────────────────► pass
//	 ├─ hydrated ─────────────────────────────────────────────────► destination
//	 ├─ not hydrated, and a read ─────────────────────────────────► source
//	 └─ not hydrated, and a write ► pass ─► hydration: the region is copied, or
//	                                        overwritten if the write covers it
//	                                     ─► its bit is set ─► the writes that waited
//
// A region is hydrated once at a time; what comes for it meanwhile waits. So do discards
// of it: they set bits without a copy, and a copy that ended behind one would overwrite
// what is written after it. (The kernel lets the two run side by side.)
//
// # Commit
//
// Bits are set in memory first. A commit, once a second and for flushes,
//
//	1 takes the regions whose bits were set since the last one   the old bits
//	2 sets them in the metadata                                  the old bits
//	3 flushes the destination                                    the old bits
//	4 writes the metadata, and the superblock                    the old or the new bits
//
// where the right column says what a power cut leaves. So no bit is durable before its
// region is. A region whose bit is lost is read from the source again: what was written
// to it was not flushed. A flush that finds bits set since the last commit waits for
// the next one, and then goes to the destination.
//
// # Modes
//
//	rw ─ a commit fails ─► ro ─ the metadata cannot be read again ─► fail
//
// In mode ro what is hydrated stays so in memory, and is read and written; flushes fail
// as long as not all of it is in the metadata. A commit that finds no space on the disks
// below (a sparse file on a full file system) is tried again and changes no mode.
// After either the next table of the device takes over what is hydrated.
//
// # Background
//
// While no I/O is under way, and once a second in any case, regions are copied in the
// order of their numbers, up to the threshold at a time, contiguous ones in batches.
// After a failure this waits for the next second.
//
// The owner is one queue, whose works do all that is above but Map. Lock order: mu is a
// leaf.
package clone

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/pdata"
	"udm/targets/clone/clonemeta"
	"udm/targets/internal/kcopyd"
)

const throttleParam = "dm_clone.clone_hydration_throttle"

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "clone", Version: [3]uint32{1, 0, 0}, New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc,
		Params: []*dm.Param{dm.NewParam(throttleParam, 100, "percent of the time in which regions of clones may be copied")}}
}

// mode says what the metadata can still do.
type mode uint32

const (
	readWrite mode = iota
	readOnly
	failed
)

type clone struct {
	target           *dm.Target
	words            []string // of the table, from the region on
	metadata         *dm.Dev
	dest, source     *dm.Dev
	shift            uint
	regions          uint64
	passdown         atomic.Bool
	enabled          atomic.Bool // hydration in the background
	threshold, batch atomic.Uint32

	mode        atomic.Uint32
	hydrated    regionMap
	done        atomic.Bool  // all regions are hydrated, durably
	uncommitted atomic.Bool  // bits were set that no commit has
	ios         atomic.Int64 // under way, as long as done is not set
	hydrating   atomic.Int64 // regions

	queue    env.Queue // the owner
	work     *env.Work // pass
	waker    *env.Work // tick
	wait     env.Wait
	copier   *kcopyd.Client
	from, to *kcopyd.Dev

	mu    sync.Mutex
	inbox inbox // guarded by mu

	// The owner's.
	md          *clonemeta.Metadata
	dirty       []clonemeta.Run       // set in memory, not in the metadata
	before      *regionMap            // hydrated in the table before, which could not commit; nil: it could
	hydrations  map[uint64]*hydration // by region
	flushes     dm.CloneList          // go to the destination after a commit
	completions dm.CloneList          // complete after a commit
	next        uint64                // region to hydrate next in the background
	lastCommit  time.Duration
	running     bool // since resume, until suspend
	paused      bool // a copy failed; until the next tick
}

// inbox is work for the owner.
type inbox struct {
	writes   dm.CloneList // to regions that were not hydrated
	discards dm.CloneList
	flushes  dm.CloneList // and FUA writes to hydrated regions
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if len(args) < 4 {
		return nil, invalid("Invalid number of arguments")
	}
	c := &clone{target: t, words: append([]string(nil), args[3:]...), hydrations: map[uint64]*hydration{}}
	if err := c.open(args); err != nil {
		return nil, err
	}
	l, err := ParseLine(args)
	if err == nil {
		err = c.take(l)
	}
	if err != nil {
		return nil, err
	}
	size := uint64(l.RegionSectors)
	if c.md, err = clonemeta.Open(t.Env(), c.metadata, t.Len, size); err == nil {
		err = c.load()
	}
	if err != nil {
		return nil, dm.Because(dm.Errorf(pdata.SuperErrno(t.Env(), c.metadata, err), "%v", err), "Failed to load metadata")
	}
	c.setUp(size)
	return c, nil
}

func (c *clone) open(args []string) (err error) {
	t := c.target
	if c.metadata, err = t.Open(args[0], true); err != nil {
		return dm.Because(err, "Error opening metadata device")
	}
	if c.dest, err = t.Open(args[1], true); err != nil {
		return dm.Because(err, "Error opening destination device")
	}
	if c.dest.Limits().Size < t.Len {
		return invalid("Device size larger than destination device")
	}
	if c.source, err = t.Open(args[2], false); err != nil {
		return dm.Because(err, "Error opening source device")
	}
	if c.source.Limits().Size < t.Len {
		return invalid("Device size larger than source device")
	}
	return nil
}

// take takes the settings of a line.
func (c *clone) take(l *Line) error {
	size := uint64(l.RegionSectors)
	for _, d := range []*dm.Dev{c.source, c.dest} {
		if size%(uint64(d.Limits().LogicalBlock)/blk.SectorSize) != 0 {
			return invalid("Region size is not a multiple of device logical block size")
		}
	}
	c.shift = uint(bits.TrailingZeros64(size))
	if c.regions = (c.target.Len + size - 1) >> c.shift; c.regions > maxRegions {
		return invalid("Too many regions. Consider increasing the region size")
	}
	c.hydrated = newRegionMap(c.regions)
	c.passdown.Store(!l.NoPassdown)
	c.enabled.Store(!l.NoHydration)
	c.threshold.Store(l.Threshold)
	c.batch.Store(l.BatchSize)
	return nil
}

// load reads which regions are hydrated.
func (c *clone) load() error {
	err := c.md.Load(c.hydrated.load)
	c.done.Store(err == nil && c.hydrated.count.Load() == c.regions)
	return err
}

type throttleKey struct{}

func (c *clone) setUp(size uint64) {
	t := c.target
	t.MaxIOLen, t.NumFlush, t.FlushSupported, t.NumDiscard, t.DiscardsSupported = size, 1, true, 1, true
	e := t.Env()
	c.queue, c.wait = e.NewQueue("dm-clone"), e.NewWait()
	c.work, c.waker = env.NewWork(c.pass), env.NewWork(c.tick)
	throttle := t.Shared(throttleKey{}, func() any { return kcopyd.NewThrottle(e, t.Param(throttleParam).Get) }).(*kcopyd.Throttle)
	c.copier = kcopyd.New(e, kcopyd.Options{Name: "clone", Queue: c.queue, Throttle: throttle})
	c.from, c.to = kcopyd.Open(c.source), kcopyd.Open(c.dest)
	c.md.SetPreCommit(func() error { return blk.FlushDevice(e, c.dest) })
}

// counted says whether a clone is counted in clone.ios.
type counted struct{ yes bool }

func (c *clone) NewPerIO() any { return new(counted) }

func (c *clone) Map(x *dm.Clone) dm.Outcome {
	if n := x.PerIO.(*counted); c.done.Load() {
		n.yes = false
	} else {
		n.yes = true
		c.ios.Add(1)
	}
	if mode(c.mode.Load()) == failed {
		return dm.Kill
	}
	if x.Op == blk.Flush {
		x.SetDev(c.dest)
		return c.mapFlush(x)
	}
	x.Sector = x.Offset()
	if x.Op == blk.Discard {
		return c.give(&c.inbox.discards, x)
	}
	x.SetDev(c.dest)
	switch {
	case c.done.Load() || c.hydrated.has(x.Sector>>c.shift):
		if x.Flags&blk.FUA != 0 {
			return c.mapFlush(x)
		}
	case x.Op == blk.Read:
		x.SetDev(c.source)
	default:
		return c.give(&c.inbox.writes, x)
	}
	return dm.Remapped
}

// mapFlush sends a flush or a FUA write to the destination, after a commit if one is
// needed.
func (c *clone) mapFlush(x *dm.Clone) dm.Outcome {
	if !c.uncommitted.Load() {
		return dm.Remapped
	}
	return c.give(&c.inbox.flushes, x)
}

func (c *clone) give(list *dm.CloneList, x *dm.Clone) dm.Outcome {
	c.mu.Lock()
	list.Push(x)
	c.mu.Unlock()
	c.queue.Queue(c.work)
	return dm.Submitted
}

func (c *clone) EndIO(x *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	if n := x.PerIO.(*counted); n.yes {
		n.yes = false
		c.ios.Add(-1)
	}
	return st, dm.EndDone
}

func (c *clone) Close() {
	usersOf(c.target).leave(c)
	c.copier.Close()
	c.queue.Close()
}

func (c *clone) Areas() []dm.Area {
	return []dm.Area{{Dev: c.source, Len: c.target.Len}, {Dev: c.dest, Len: c.target.Len}}
}

// Uncommitted reports whether regions were hydrated since the last commit.
func (c *clone) Uncommitted() bool { return c.uncommitted.Load() }

// Hint makes whole regions the preferred I/O size, unless the devices prefer a multiple
// of them, and has discards as the destination takes them.
func (c *clone) Hint(l *blk.Limits) {
	l.ProcessCache = true // what was hydrated is committed later
	size := uint64(1) << c.shift
	if bytes := uint32(size * blk.SectorSize); l.OptIO < bytes || l.OptIO%bytes != 0 {
		l.MinIO, l.OptIO = max(bytes, l.PhysicalBlock), bytes
	}
	dest := c.dest.Limits()
	if dest.MaxDiscard < size {
		c.passdown.Store(false)
	}
	if c.passdown.Load() {
		l.MaxDiscard, l.DiscardGranularity = dest.MaxDiscard, dest.DiscardGranularity
		return
	}
	l.MaxDiscard, l.DiscardGranularity = (1<<32-1)>>blk.SectorShift&^(size-1), uint32(size*blk.SectorSize)
}

// maxExtents bounds the work of an answer.
const maxExtents = 1024

// Extents is the map of the destination where regions are hydrated, else that of the
// source.
func (c *clone) Extents(offset, sectors uint64) (list []blk.Extent) {
	for at, end := offset, offset+sectors; at < end && len(list) < maxExtents; {
		region := at >> c.shift
		dev, has := c.source.Device, c.hydrated.has(region)
		if has {
			dev = c.dest.Device
		}
		stop := region + 1
		for stop<<c.shift < end && stop-region < maxExtents && c.hydrated.has(stop) == has {
			stop++
		}
		n := min(end, stop<<c.shift) - at
		for _, e := range blk.ExtentsOf(dev, at, n) {
			list = blk.AppendExtent(list, e)
			at = e.Sector + e.Sectors
		}
	}
	return list
}
