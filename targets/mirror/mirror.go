// Package mirror is the target "mirror": it keeps the same data on several devices, its
// legs (drivers/md/dm-raid1.c, dm-region-hash.c, dm-log.c). The manual is [Type]'s Doc.
//
// # Regions
//
// The device is divided into regions of equal size. The log has two bits for each: clean,
// which a log on a disk keeps, says that the legs are alike whatever happens; sync says
// that they were made alike. A region with I/O or in trouble is in memory:
//
//	clean ─ write ─► dirty ─ the last write ends ─► clean, forgotten by the next pass
//	                   │ a write fails on a leg
//	                   ▼
//	not in sync ──────────────► recovering ─ copied ─► forgotten, in sync
//
// Writes to regions in sync go to all legs, others to the primary leg only. Those to a
// region that is being recovered wait until it is. Discards are writes to all legs: what they
// leave must be alike.
//
// # Order of a write
//
//	Map ─► waiting ─► pass: its region is dirty; one write of the log, and one flush of
//	                  it, for all writes that wait ─► written to the legs ─► end
//
// A clean bit goes to the disk later, behind a flush of all legs. So after a power cut,
// regions in which legs may differ are dirty on the disk, and are copied from leg 0. Bits
// of one write of the log that reach the disk in part are older ones, which are dirty, or
// newer ones, whose regions no write has reached.
//
// # Failures
//
// A leg that had an error is not read any more as long as another one can be. If it is
// the primary leg and the mirror is in sync, another leg becomes the primary, until the
// mirror has become in sync again: a restart takes leg 0 for the source. A mirror that
// was in sync is not any more when a resume cannot read the log: from then on the primary
// alone may have the data. What happens to a write depends on the table:
//
//	                 a leg failed                   the log failed
//	(nothing)        succeeds                       succeeds
//	handle_errors    is held until a suspend        is held until a suspend
//	  and keep_log   succeeds                       fails
//
// A log that failed once stays so for writes to all legs. Those to the primary alone go on if
// the log was written since the resume: until then it may call their regions clean.
//
// A held write fails at the suspend, or is repeated by the next table if that is without
// flush; meanwhile LVM has replaced the leg. Without handle_errors, or with keep_log, the
// order of legs decides after a restart: leg 0 is the source, also if it was the one that
// failed.
//
// A leg without space (a sparse file on a full file system) has not failed: the write
// fails with NoSpace, its region is not in sync, and recovery tries again each second.
//
// # Owner and locks
//
// The owner is one queue, whose works do everything but mapped reads and the ends of I/O:
// the log is theirs. Lock order: mu is a leaf.
package mirror

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
	"udm/targets/internal/segment"
)

const throttleParam = "dm_mirror.raid1_resync_throttle"

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "mirror", Version: [3]uint32{1, 14, 0}, New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc,
		Params: []*dm.Param{dm.NewParam(throttleParam, 100, "percent of the time in which regions of mirrors may be copied")}}
}

type mirror struct {
	target  *dm.Target
	line    *Line
	shift   uint // log2 of the sectors in a region
	legs    []leg
	primary atomic.Int32 // leg that regions are recovered from
	log     *dirtyLog    // the owner's, but for what it says itself
	inSync  atomic.Bool  // all regions were in sync, and no write has failed since; set by the owner, or with mu to false

	legFailed atomic.Bool // since the mirror was in sync

	queue  env.Queue // the owner
	work   *env.Work // pass
	again  *env.Work // tryAgain
	wait   env.Wait
	copier *kcopyd.Client

	mu      sync.Mutex
	inbox   inbox        // guarded by mu
	held    dm.CloneList // guarded by mu; writes that wait for a suspend
	stopped bool         // guarded by mu; not resumed yet, or going to be suspended
	regions regions      // guarded by mu

	// The owner's.
	recovery  recovery
	logFailed bool
}

// inbox is work for the owner.
type inbox struct{ reads, writes, failures dm.CloneList }

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	line, wrong := parse(args)
	if line == nil {
		return nil, wrong
	}
	m := &mirror{target: t, line: line, stopped: true}
	if err := m.openLog(); err != nil {
		return nil, dm.Because(dm.Errorf(syscall.EINVAL, "%v", err), badLog)
	}
	m.legs = make([]leg, len(line.Legs))
	for i, p := range line.Legs {
		s, err := segment.Open(t, p, "Device lookup failure")
		if err != nil {
			return nil, err
		}
		m.legs[i].Segment = s
	}
	if wrong != nil {
		return nil, wrong
	}
	if err := m.fits(); err != nil {
		return nil, err
	}
	m.setUp()
	return m, nil
}

// openLog opens the device of the log and checks what depends on it and on the length.
func (m *mirror) openLog() (err error) {
	m.log = &dirtyLog{env: m.target.Env(), sync: m.line.Sync, event: m.target.Event}
	if m.line.Log != "" {
		if m.log.dev, err = m.target.Open(m.line.Log, m.target.Writable()); err != nil {
			return err
		}
	}
	size := uint64(m.line.Region)
	if size > m.target.Len {
		return invalid("the region size is larger than the device")
	}
	m.shift = uint(bits.TrailingZeros64(size))
	return m.log.shape((m.target.Len + size - 1) >> m.shift)
}

// fits refuses legs that are too short, in the words of the core, before memory is taken
// for their regions. One without a table yet has no size.
func (m *mirror) fits() error {
	for i := range m.legs {
		l := &m.legs[i]
		if size := l.Dev.Limits().Size; size != 0 && (l.Start > size || m.target.Len > size-l.Start) {
			return dm.Errorf(syscall.EINVAL, "%s too small for target: start=%d, len=%d, dev_size=%d", l.Dev.Name(), l.Start, m.target.Len, size)
		}
	}
	return nil
}

type throttleKey struct{}

func (m *mirror) setUp() {
	t := m.target
	t.MaxIOLen, t.NumFlush, t.NumDiscard = uint64(m.line.Region), 1, 1
	m.log.flushLegs = m.flushLegs
	m.log.make()
	m.inSync.Store(m.log.synced.Load() == m.log.count)
	m.regions.known = map[uint64]*region{}
	e := t.Env()
	m.queue, m.wait = e.NewQueue("dm-mirror"), e.NewWait()
	m.work, m.again = env.NewWork(m.pass), env.NewWork(m.tryAgain)
	throttle := t.Shared(throttleKey{}, func() any { return kcopyd.NewThrottle(e, t.Param(throttleParam).Get) }).(*kcopyd.Throttle)
	m.copier = kcopyd.New(e, kcopyd.Options{Name: "mirror", Queue: m.queue, Throttle: throttle})
	m.recovery.job.Done = m.copied
}

func (m *mirror) Map(c *dm.Clone) dm.Outcome {
	if c.Op != blk.Read {
		return m.give(&m.inbox.writes, c)
	}
	p := c.PerIO.(*perIO)
	p.leg, p.number = nil, m.regionOf(c)
	if !m.log.inSync(p.number) {
		if c.Flags&blk.Readahead != 0 {
			return dm.Kill
		}
		return m.give(&m.inbox.reads, c)
	}
	if p.leg = m.choose(); p.leg == nil {
		return dm.Kill
	}
	p.leg.Map(c)
	return dm.Remapped
}

func (m *mirror) regionOf(c *dm.Clone) uint64 { return c.Offset() >> m.shift }

func (m *mirror) give(list *dm.CloneList, c *dm.Clone) dm.Outcome {
	m.mu.Lock()
	list.Push(c)
	m.mu.Unlock()
	m.queue.Queue(m.work)
	return dm.Submitted
}

func (m *mirror) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	p := c.PerIO.(*perIO)
	if c.Op != blk.Read {
		return m.writeEnded(p, st)
	}
	if st != blk.OK && p.leg != nil && c.Flags&blk.Readahead == 0 && m.readFailed(c, p, st) {
		return st, dm.EndIncomplete
	}
	return st, dm.EndDone
}

// Close waits for the owner.
func (m *mirror) Close() {
	m.copier.Close()
	m.queue.Close()
}

func (m *mirror) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		l := *m.line
		l.Legs = nil
		for i := range m.legs {
			l.Legs = append(l.Legs, m.legs[i].Place())
		}
		if m.log.dev != nil {
			l.Log = m.log.dev.Name()
		}
		return l.String()
	}
	s := &Status{Synced: m.log.synced.Load(), Regions: m.log.count}
	for i := range m.legs {
		s.Legs = append(s.Legs, Leg{m.legs[i].Dev.Name(), m.legs[i].health()})
	}
	if m.log.dev != nil {
		s.Log, s.LogHealth = m.log.dev.Name(), m.log.health()
	}
	return s.String()
}

// Areas leaves the log out, as the kernel does.
func (m *mirror) Areas() (as []dm.Area) {
	for i := range m.legs {
		as = append(as, m.legs[i].Area(m.target.Len))
	}
	return as
}

// maxDiscard is how many regions one discard may have: they are marked one by one.
const maxDiscard = 1 << 16

// Hint asks for data that do not change while they are written to one leg after the other.
func (m *mirror) Hint(l *blk.Limits) {
	l.StableWrites = true
	l.MaxDiscard = min(l.MaxDiscard, maxDiscard<<m.shift)
}

// Extents is the map of the primary leg: what is not in sync is read from there, and what
// is in sync is alike on all legs.
func (m *mirror) Extents(offset, sectors uint64) []blk.Extent {
	return m.legs[m.primary.Load()].Extents(offset, sectors)
}
