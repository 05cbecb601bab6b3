// Package kcopyd copies and zeroes ranges of block devices in the background (the
// kernel's drivers/md/dm-kcopyd.c and dm-io.c). A [Client] belongs to one target.
// A [Job] is a copy from one device to up to eight others, a zeroing, or a
// callback without I/O that takes its turn among the others' callbacks.
//
// # Life of a job
//
//	Copy ─► wait for memory ─► read ─► write to every destination ─┐
//	Zero ─────────────────────────────► write ─────────────────────┼─► Done
//	Prepare … Fire ────────────────────────────────────────────────┘
//
// A long job is split into segments of [Options.SubJob] sectors, up to eight at a
// time, each with one buffer, so that devices see large requests.
// [Options.Memory] bounds the memory: segments wait for it in order.
//
// # Who calls Done
//
// The Done functions of a client run one at a time, in the order in which the
// jobs were finished. This package starts no goroutine. With [Options.Queue] they
// run as a work of that queue, and so never beside its other works. Without it,
// the goroutine that finishes a job runs its Done at once, unless another
// goroutine is running one and then runs this one as well. Jobs with [Job.AtOnce]
// are exempt from this order. Done may run before Copy returns; callers of Copy
// and Fire, and whoever completes a bio, must hold no lock that Done takes. Done
// may start jobs.
//
// # Locks
//
// Client.mu, memory.mu and throttle.mu are leaves: nothing is called under them.
package kcopyd

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/env"
)

// MaxDests is the largest number of destinations of a copy.
const MaxDests = 8

const (
	defaultSubJob = 512 << 10 / blk.SectorSize
	maxSubJob     = 1 << 20 / blk.SectorSize
	splitCount    = 8 // segments of one job at a time
)

// Options configure a client. Zero values mean the defaults.
type Options struct {
	Name     string    // for people
	SubJob   uint64    // sectors in a segment; 0: 512 KiB; at most 1 MiB
	Memory   int64     // bytes of buffers in use at a time; 0: eight segments
	Queue    env.Queue // where Done runs; nil: see the package comment
	Throttle *Throttle // nil: no throttle
}

// Client runs jobs. It is safe for concurrent use.
type Client struct {
	queue    env.Queue
	ownQueue bool // created and closed by the client
	inline   bool // Done runs on the goroutine that finishes a job
	work     *env.Work
	idle     env.Wait

	subJob   uint64
	throttle *Throttle
	mem      memory

	inFlight InFlight // jobs from start or Prepare until Done returns, and memory
	closing  atomic.Bool

	mu      sync.Mutex
	done    jobList // guarded by mu; finished, Done not called
	running bool    // guarded by mu; somebody calls Done functions, or the work is queued to
	held    segList // guarded by mu; held back by the throttle, in order of due times
	release *env.Work
}

// New creates a client. Close it after use.
func New(e env.Env, o Options) *Client {
	c := &Client{queue: o.Queue, idle: e.NewWait(), subJob: o.SubJob, throttle: o.Throttle}
	if c.subJob == 0 {
		c.subJob = defaultSubJob
	}
	c.subJob = min(c.subJob, maxSubJob)
	if c.queue == nil {
		c.queue, c.ownQueue, c.inline = e.NewQueue("kcopyd-"+o.Name), true, true
	}
	c.inFlight.Init()
	c.work = env.NewWork(c.runDone)
	c.release = env.NewWork(c.releaseHeld)
	largest := classBytes(classOf(c.subJob))
	c.mem.limit = max(o.Memory, largest)
	if o.Memory == 0 {
		c.mem.limit = splitCount * largest
	}
	c.mem.init(c)
	return c
}

// Close waits until no job is left; prepared jobs must be fired. If the queue belongs
// to the caller it must still run, and Close must not be called from one of its
// works.
func (c *Client) Close() {
	c.closing.Store(true)
	c.idle.Until(c.inFlight.Idle)
	if c.ownQueue {
		c.queue.Close()
	}
}

// Dev is a device to copy from and to.
type Dev struct {
	blk.Device
	maxData, maxZeroes uint64 // sectors in one bio; maxZeroes 0: no write-zeroes
	// refused says that the device has refused write-zeroes after all: a device below has
	// another table now. Zeroes are written to it as data from then on.
	refused atomic.Bool
}

// Open reads d's limits, which must not change while d is in use. It does not own d.
func Open(d blk.Device) *Dev {
	l := d.Limits()
	dev := &Dev{Device: d, maxData: uint64(l.MaxSectors), maxZeroes: l.MaxWriteZeroes}
	if dev.maxData == 0 {
		dev.maxData = blk.NoLimit
	}
	return dev
}

// Place is the start of a range.
type Place struct {
	Dev    *Dev
	Sector uint64
}

// Job is one copy, zeroing or callback. The caller owns it, sets the first group of
// fields, and may reuse it once Done has been called, also within Done. The zero Job
// is ready for use. A Job must not be copied or changed while it is in progress.
type Job struct {
	From    Place
	To      []Place // at most MaxDests; for Copy and Zero
	Sectors uint64  // 0: only calls Done
	// IgnoreErrors continues after an error. Where reading failed, whatever is in the
	// buffer is written.
	IgnoreErrors bool
	// AtOnce runs Done as soon as the job is finished, on the stack that finishes
	// it, concurrently with those of other jobs and in no order.
	AtOnce bool
	// NoUnmap lets Zero keep or allocate the space that it zeroes.
	NoUnmap bool
	Done    func(*Job)
	Private any // the caller's

	// The result, for Done to read.
	ReadFailed  bool  // some of the source could not be read
	WriteFailed uint8 // bit i: some of To[i] could not be written
	NoSpace     bool  // only writes failed, and only for lack of space

	zero     bool
	one      [1]Place
	readBad  atomic.Bool
	writeBad atomic.Uint32
	worse    atomic.Bool   // a write failed for a reason other than lack of space
	progress atomic.Uint64 // sectors given to segments
	segments atomic.Int32  // under way
	next     *Job          // link of Client.done
	client   *Client       // the last one
	shard    *Shard        // of its counters; kept for reuse
}

// Link is the field that links jobs in a list.
func (j *Job) Link() **Job { return &j.next }

// Failed reports whether anything went wrong.
func (j *Job) Failed() bool { return j.ReadFailed || j.WriteFailed != 0 }

// SetTo makes p the only destination, without allocation.
func (j *Job) SetTo(p Place) {
	j.one[0] = p
	j.To = j.one[:]
}

// Copy reads j.Sectors from j.From and writes them to each of j.To. It does not
// block.
func (c *Client) Copy(j *Job) {
	j.zero = false
	c.start(j)
}

// Zero makes j.Sectors of each of j.To read as zeroes: with write-zeroes if all
// devices support it, else by writing zeroes. It does not block.
func (c *Client) Zero(j *Job) {
	j.zero = true
	c.start(j)
}

// Prepare announces a later Fire(j), which Close waits for. Only Done and Private of
// j are used.
func (c *Client) Prepare(j *Job) {
	j.ReadFailed, j.WriteFailed, j.NoSpace = false, 0, false
	if j.client != c {
		j.client, j.shard = c, c.inFlight.Pick()
	}
	j.shard = c.inFlight.Begin(j.shard)
}

// Fire finishes j as if it were a copy that has just completed. The caller may
// set ReadFailed, WriteFailed and NoSpace before.
func (c *Client) Fire(j *Job) { c.finish(j) }

func (c *Client) start(j *Job) {
	c.Prepare(j)
	if j.Sectors == 0 {
		c.finish(j)
		return
	}
	j.readBad.Store(false)
	j.writeBad.Store(0)
	j.worse.Store(false)
	n := min((j.Sectors+c.subJob-1)/c.subJob, splitCount)
	if j.zero && j.zeroable() {
		n = 1
	}
	j.progress.Store(0)
	j.segments.Store(int32(n))
	for range n {
		c.startSegment(j)
	}
}

// zeroable reports whether every destination has write-zeroes.
func (j *Job) zeroable() bool {
	for i := range j.To {
		if d := j.To[i].Dev; d.maxZeroes == 0 || d.refused.Load() {
			return false
		}
	}
	return true
}

// segmentDone runs when one of j's segments has ended.
func (c *Client) segmentDone(j *Job) {
	if j.segments.Add(-1) > 0 {
		return
	}
	j.ReadFailed, j.WriteFailed = j.readBad.Load(), uint8(j.writeBad.Load())
	j.NoSpace = j.WriteFailed != 0 && !j.ReadFailed && !j.worse.Load()
	c.finish(j)
}
