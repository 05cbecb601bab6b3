package snapshot

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// table holds the complete exceptions: the COW device's chunk for each chunk of the
// snapshot. Look-ups take no lock and write nothing. Changes take the lock of one
// bucket, except additions to a dense leaf.
//
// Chunks are grouped by 256. A bucket is a list of leaves, one for each group that
// has exceptions; leaves are added at the front and never removed. A leaf first holds
// a few runs of consecutive chunks, in a slice that is replaced to add a run; a run
// that grows at its end is changed in place. With more than maxRuns runs the leaf
// becomes, for good, an array of all 256 chunks, whose elements are set without the
// lock. (The kernel's complete table is a hash table of sorted lists of such runs.)
type table struct {
	mask    uint64
	buckets []bucket
}

type bucket struct {
	mu   sync.Mutex           // held to change the leaves of the bucket
	head atomic.Pointer[leaf] // written under mu
}

const (
	groupShift = 8
	groupLen   = 1 << groupShift
	maxRuns    = 16

	minBuckets = 64
	maxBuckets = 1 << 18

	// maxChunk is the first chunk number that does not fit into a run.
	maxChunk = 1 << 54
)

type leaf struct {
	group uint64
	next  *leaf
	runs  atomic.Pointer[[]run]  // written under the bucket's mu; nil: none
	dense atomic.Pointer[chunks] // written once, under the bucket's mu; once set, runs is unused
}

// chunks holds for each chunk of a group its place in the COW device plus one.
type chunks [groupLen]atomic.Uint64

// run maps the chunks from old on to those from new on. The top byte of where is the
// number of chunks after the first; the rest is new.
type run struct {
	old   uint64
	where atomic.Uint64
}

const countShift = 56

func (r *run) load() (first, more uint64) {
	w := r.where.Load()
	return w & (1<<countShift - 1), w >> countShift
}

// newTable creates a table for about n chunks.
func newTable(n uint64) *table {
	n = min(max(n>>groupShift, minBuckets), maxBuckets)
	n = 1 << bits.Len64(n-1)
	return &table{mask: n - 1, buckets: make([]bucket, n)}
}

func (t *table) bucket(chunk uint64) *bucket { return &t.buckets[chunk>>groupShift&t.mask] }

// lookup returns where chunk lies in the COW device.
func (t *table) lookup(chunk uint64) (where uint64, ok bool) {
	l := t.bucket(chunk).find(chunk >> groupShift)
	if l == nil {
		return 0, false
	}
	return l.lookup(chunk)
}

func (l *leaf) lookup(chunk uint64) (where uint64, ok bool) {
	if d := l.dense.Load(); d != nil {
		w := d[chunk%groupLen].Load()
		return w - 1, w != 0
	}
	rs := l.runs.Load()
	if rs == nil {
		return 0, false
	}
	for i := range *rs {
		r := &(*rs)[i]
		first, more := r.load()
		if d := chunk - r.old; d <= more {
			return first + d, true
		}
	}
	return 0, false
}

// lookupRun is lookup for up to max chunks from chunk on: the first n of them, within
// one group, are consecutive in the COW device or have no exception.
func (t *table) lookupRun(chunk, max uint64) (where, n uint64, ok bool) {
	max = min(max, groupLen-chunk%groupLen)
	l := t.bucket(chunk).find(chunk >> groupShift)
	if l == nil {
		return 0, max, false
	}
	where, ok = l.lookup(chunk)
	for n = 1; n < max; n++ {
		if w, has := l.lookup(chunk + n); has != ok || ok && w != where+n {
			break
		}
	}
	return where, n, ok
}

// insert adds an exception. It reports false when chunk has one already.
func (t *table) insert(chunk, where uint64) bool {
	b := t.bucket(chunk)
	if l := b.find(chunk >> groupShift); l != nil {
		if d := l.dense.Load(); d != nil {
			return d[chunk%groupLen].CompareAndSwap(0, where+1)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leaf(chunk>>groupShift).insert(chunk, where)
}

// find returns the group's leaf, or nil.
func (b *bucket) find(group uint64) *leaf {
	l := b.head.Load()
	for l != nil && l.group != group {
		l = l.next
	}
	return l
}

// leaf returns the group's leaf, creating it if needed. Called with mu held.
func (b *bucket) leaf(group uint64) *leaf {
	l := b.find(group)
	if l == nil {
		l = &leaf{group: group, next: b.head.Load()}
		b.head.Store(l)
	}
	return l
}

func (l *leaf) insert(chunk, where uint64) bool {
	if _, ok := l.lookup(chunk); ok {
		return false
	}
	if d := l.dense.Load(); d != nil {
		d[chunk%groupLen].Store(where + 1)
		return true
	}
	var rs []run
	if p := l.runs.Load(); p != nil {
		rs = *p
	}
	if extend(rs, chunk, where) {
		return true
	}
	if len(rs) == maxRuns {
		l.spread(rs)
		l.dense.Load()[chunk%groupLen].Store(where + 1)
		return true
	}
	l.replace(rs, len(rs), addition{chunk, where, 0})
	return true
}

// extend adds the chunk to a run that ends just before it.
func extend(rs []run, chunk, where uint64) bool {
	for i := range rs {
		r := &rs[i]
		first, more := r.load()
		if r.old+more+1 == chunk && first+more+1 == where && more < groupLen-1 {
			r.where.Add(1 << countShift)
			return true
		}
	}
	return false
}

// spread converts the runs to an array.
func (l *leaf) spread(rs []run) {
	d := new(chunks)
	for i := range rs {
		first, more := rs[i].load()
		for j := range more + 1 {
			d[(rs[i].old+j)%groupLen].Store(first + j + 1)
		}
	}
	l.dense.Store(d)
}

// addition is a run to add: old, and more chunks after it.
type addition struct{ old, first, more uint64 }

// replace publishes rs without element drop (len(rs): keep all) and with the
// additions.
func (l *leaf) replace(rs []run, drop int, adds ...addition) {
	out := make([]run, 0, len(rs)+len(adds))
	for i := range rs {
		if i != drop {
			out = out[:len(out)+1]
			out[len(out)-1].old = rs[i].old
			out[len(out)-1].where.Store(rs[i].where.Load())
		}
	}
	for _, a := range adds {
		out = out[:len(out)+1]
		out[len(out)-1].old = a.old
		out[len(out)-1].where.Store(a.first | a.more<<countShift)
	}
	l.runs.Store(&out)
}

// remove removes an exception. It reports false if there is none.
func (t *table) remove(chunk uint64) bool {
	b := t.bucket(chunk)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leaf(chunk >> groupShift).remove(chunk)
}

func (l *leaf) remove(chunk uint64) bool {
	if d := l.dense.Load(); d != nil {
		return d[chunk%groupLen].Swap(0) != 0
	}
	var rs []run
	if p := l.runs.Load(); p != nil {
		rs = *p
	}
	for i := range rs {
		first, more := rs[i].load()
		at := chunk - rs[i].old
		if at > more {
			continue
		}
		if at == more && more > 0 {
			rs[i].where.Add(^uint64(1<<countShift) + 1)
			return true
		}
		l.cut(rs, i, first, at, more)
		return true
	}
	return false
}

// cut removes the chunk at offset at from run i, which leaves up to two runs.
func (l *leaf) cut(rs []run, i int, first, at, more uint64) {
	var adds []addition
	if at > 0 {
		adds = append(adds, addition{rs[i].old, first, at - 1})
	}
	if at < more {
		adds = append(adds, addition{rs[i].old + at + 1, first + at + 1, more - at - 1})
	}
	l.replace(rs, i, adds...)
}

// all calls fn for every exception, in no particular order. Nothing may change
// meanwhile.
func (t *table) all(fn func(chunk, where uint64)) {
	for i := range t.buckets {
		for l := t.buckets[i].head.Load(); l != nil; l = l.next {
			for c := l.group << groupShift; c>>groupShift == l.group; c++ {
				if w, ok := l.lookup(c); ok {
					fn(c, w)
				}
			}
		}
	}
}
