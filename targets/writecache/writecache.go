package writecache

import (
	"math/bits"
	"sync"
	"syscall"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

const (
	highWatermark    = 50 // percent
	lowWatermark     = 45
	autocommitBlocks = 65536
	autocommitTime   = 1000 // milliseconds
	pauseWriteback   = 3000
	ageParts         = 16 // how often in max_age the oldest block is looked at
)

// writecache is a line of a table (struct dm_writecache).
type writecache struct {
	t            *dm.Target
	env          env.Env
	line         *Line
	origin, fast *dm.Dev
	start        uint64 // sector of the superblock
	super        Superblock
	blockSectors uint64
	dataSector   uint64 // of the first block, on fast

	maxJobs    int // blocks written back at a time; 0: any number
	autoBlocks int
	autoTime   time.Duration
	maxAge     time.Duration // negative: none
	pause      time.Duration

	queue    env.Queue // the owner
	passWork *env.Work
	autoWork *env.Work // commits when it is time to
	ageWork  *env.Work
	lateWork *env.Work      // a pass after a pause
	wait     env.Wait       // for I/O in flight, and for the owner
	copier   *kcopyd.Client // its Done functions are works of the owner
	from, to *kcopyd.Dev    // fast and origin
	image    *image         // the owner's
	leaving  []int32        // the owner's; to be freed
	runs     []*run         // the owner's, who changes its length with mu held; being copied
	copying  int            // the owner's; of runs
	unclear  bool           // the owner's; entries were cleared in the image only
	discards dm.CloneList   // the owner's; wait for what is being written back
	retryAt  time.Duration  // the owner's; nothing is written back before
	loaded   bool           // the metadata were read; used only by suspend and resume

	formatted bool // set by New: the cache is a new one, and nothing of an old one counts

	mu        sync.Mutex
	entries   *entries
	freeSet   *freeSet
	high, low int           // guarded by mu; see the package comment
	seq       uint64        // guarded by mu; of new entries
	committed uint64        // guarded by mu; the superblock's: smaller ones are committed
	fresh     int           // guarded by mu; entries taken since the last seal
	counted   int           // guarded by mu; the same, for autocommit
	overwrote bool          // guarded by mu; blocks of earlier commits were overwritten since the last one
	reads     inFlight      // guarded by mu; of fast
	writes    inFlight      // guarded by mu; of fast
	around    int           // guarded by mu; writes of origin in flight
	calmSince time.Duration // guarded by mu; when around became 0
	writing   int           // guarded by mu; entries that are being written back and freed
	draining  bool          // guarded by mu; the high watermark was passed, and not yet the low one
	goal      uint64        // guarded by mu; entries with smaller counts are to be written back
	cleaned   uint64        // guarded by mu; they have been, up to this count
	giveUps   uint64        // guarded by mu; attempts that have found no space
	held      bool          // guarded by mu; discards wait for blocks that are in use
	armed     bool          // guarded by mu; autoWork is
	due       bool          // guarded by mu; a commit is wanted
	stopped   bool          // guarded by mu; suspended
	cleaner   bool          // guarded by mu
	flushLast bool          // guarded by mu; write everything back at the next suspend
	err       error         // guarded by mu; the first: writes and flushes fail
	stats     Status        // guarded by mu; Blocks, Free and Writeback are not used
	inbox     inbox         // guarded by mu
}

// inbox is work for the owner.
type inbox struct {
	flushes  dm.CloneList // wait for a commit
	discards dm.CloneList
	waiting  dm.CloneList // for the first write of a block
	blocked  dm.CloneList // writes that wait for a free block
	dropped  []int32      // entries whose first write has failed
}

// inFlight counts I/O in two epochs, so that the owner can wait for what is under way.
type inFlight struct {
	epoch int
	n     [2]int
}

func (f *inFlight) enter() int {
	f.n[f.epoch]++
	return f.epoch
}

// leave reports whether it was the last of an epoch that is over.
func (f *inFlight) leave(epoch int) bool {
	f.n[epoch]--
	return f.n[epoch] == 0 && epoch != f.epoch
}

// seal begins another epoch and returns the old one, which has to become empty before
// the next seal.
func (f *inFlight) seal() int {
	old := f.epoch
	f.epoch = 1 - old
	return old
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	l, wrong := parseLine(args)
	w := &writecache{t: t, env: t.Env(), line: l, stopped: true}
	if err := w.open(); err != nil {
		return nil, err
	}
	if err := w.checkBlockSize(); err != nil {
		return nil, err
	}
	if wrong != nil {
		return nil, wrong
	}
	if err := w.loadSuperblock(); err != nil {
		return nil, err
	}
	w.take()
	w.setUp()
	return w, nil
}

// open opens the devices of a line as far as it names them.
func (w *writecache) open() (err error) {
	for _, d := range []struct {
		name, reason string
		to           **dm.Dev
	}{{w.line.Origin, "Origin data device lookup failed", &w.origin}, {w.line.Cache, "Cache data device lookup failed", &w.fast}} {
		if d.name == "" {
			return nil // what is wrong is known
		}
		if *d.to, err = w.t.Open(d.name, w.t.Writable()); err != nil {
			return dm.Because(err, d.reason)
		}
	}
	return nil
}

func (w *writecache) checkBlockSize() error {
	bs := w.line.BlockSize
	if bs != 0 && (bs < w.origin.Limits().LogicalBlock || bs < w.fast.Limits().LogicalBlock) {
		return invalid("Block size is smaller than device logical block size")
	}
	return nil
}

// loadSuperblock reads the superblock, or formats the device if it has none.
func (w *writecache) loadSuperblock() error {
	if !w.t.Writable() {
		return dm.Errorf(syscall.EACCES, "the table is read-only; a writecache has to write to its cache")
	}
	size := w.fast.Limits().Size
	w.start = valueOr(w.line.StartSector, 0)
	if w.line.StartSector != nil && w.start >= size {
		return invalid("Invalid optional argument")
	}
	bytes := (size - w.start) * blk.SectorSize
	n, err := blocksFor(bytes, w.line.BlockSize)
	if err != nil {
		return err
	}
	p := make([]byte, w.line.BlockSize)
	if err := blk.ReadSectors(w.env, w.fast, p, w.start); err != nil {
		return dm.Because(err, "Unable to read first block of metadata")
	}
	s, fresh, err := decodeSuperblock(p)
	if fresh {
		w.formatted = true
		s = &Superblock{BlockSize: w.line.BlockSize, Blocks: n}
		err = dm.Because(w.format(s), "Unable to initialize device")
	}
	if err == nil {
		err = s.fits(w.line.BlockSize, bytes)
	}
	if err == nil {
		w.super = *s
	}
	return err
}

// format writes empty metadata. The superblock becomes valid last.
func (w *writecache) format(s *Superblock) error {
	w.image = newImage(s)
	for i := range int32(s.Blocks) {
		w.image.put(i, freeSeq, freeSeq)
	}
	w.image.dirty[0] = true
	err := w.writeChanges()
	if err == nil {
		s.encode(w.image.p)
		err = w.writeSuperblock(0)
	}
	w.image = nil
	return err
}

// take takes the settings of the line.
func (w *writecache) take() {
	l, ms := w.line, func(n *uint64, without uint64) time.Duration {
		return time.Duration(valueOr(n, without)) * time.Millisecond
	}
	w.blockSectors = uint64(l.BlockSize) / blk.SectorSize
	w.dataSector = w.start + metadataSize(w.super.Blocks, l.BlockSize)/blk.SectorSize
	w.maxJobs = int(valueOr(l.WritebackJobs, 0))
	w.autoBlocks = int(valueOr(l.AutocommitBlocks, autocommitBlocks))
	w.autoTime, w.pause = ms(l.AutocommitTime, autocommitTime), ms(l.PauseWriteback, pauseWriteback)
	w.maxAge = -1
	if l.MaxAge != nil {
		w.maxAge = ms(l.MaxAge, 0)
	}
	w.high, w.low = w.freeAt(valueOr(l.HighWatermark, highWatermark)), w.freeAt(valueOr(l.LowWatermark, lowWatermark))
	w.calmSince = w.env.Now() - w.pause
	if l.Cleaner {
		w.becomeCleaner()
	}
}

// freeAt is how many blocks are free when some percent are in use.
func (w *writecache) freeAt(percent uint64) int {
	return int((w.super.Blocks*(100-percent) + 50) / 100)
}

// becomeCleaner makes everything be written back and nothing come into the cache. Called
// with mu held, or by New.
func (w *writecache) becomeCleaner() {
	w.cleaner, w.flushLast = true, true
	w.high, w.low = int(w.super.Blocks), int(w.super.Blocks)
}

type throttleKey struct{}

// setUp sets how bios are cut, and makes what works in the background.
func (w *writecache) setUp() {
	t := w.t
	t.NumFlush, t.FlushSupported, t.NumDiscard = 2, true, 1
	t.PartialUnit = w.blockSectors
	w.queue, w.wait = w.env.NewQueue("dm-writecache"), w.env.NewWait()
	w.passWork, w.autoWork = env.NewWork(w.pass), env.NewWork(w.autocommit)
	w.ageWork, w.lateWork = env.NewWork(w.lookAtAge), env.NewWork(w.pass)
	throttle := t.Shared(throttleKey{}, func() any { return kcopyd.NewThrottle(w.env, t.Param(throttleParam).Get) }).(*kcopyd.Throttle)
	w.copier = kcopyd.New(w.env, kcopyd.Options{Name: "writecache", Queue: w.queue, Throttle: throttle})
	w.from, w.to = kcopyd.Open(w.fast), kcopyd.Open(w.origin)
}

func (w *writecache) Close() {
	u := usersOf(w.t)
	u.mu.Lock()
	if u.of[w.place()] == w {
		delete(u.of, w.place())
	}
	u.mu.Unlock()
	if w.loaded {
		w.call(func() { _ = w.commit() }) // if the last attempt has found no space
	}
	w.copier.Close()
	w.queue.Close()
}

func (w *writecache) Areas() []dm.Area { return []dm.Area{{Dev: w.origin, Len: w.t.Len}} }

// Uncommitted reports whether the cache has blocks that the metadata on disk do not know.
func (w *writecache) Uncommitted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil || w.fresh > 0 || w.committed < w.seq
}

// Hint makes clients send whole blocks.
func (w *writecache) Hint(l *blk.Limits) {
	bs := w.line.BlockSize
	l.LogicalBlock, l.PhysicalBlock, l.MinIO = max(l.LogicalBlock, bs), max(l.PhysicalBlock, bs), max(l.MinIO, bs)
	fast := w.fast.Limits()
	l.ProcessCache = true // new entries are committed later
	l.ProcessMemory, l.StableWrites = l.ProcessMemory || fast.ProcessMemory, l.StableWrites || fast.StableWrites
}

// sector is where a block of the cache begins on fast.
func (w *writecache) sector(i int32) uint64 { return w.dataSector + uint64(i)*w.blockSectors }

func (w *writecache) blockShift() int { return bits.TrailingZeros64(w.blockSectors) }
