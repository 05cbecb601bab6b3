package smq

const levels = 64

// queue is a list of entries for each level. An entry rises when it is used: the most
// used ones are in the upper levels, which are kept small.
type queue struct {
	es entries
	n  int // without sentinels
	qs [levels]list

	// The numbers of entries that redistribute aims at.
	targetOf int // the n that target was computed for
	top      int // number of top levels that share inTop entries
	inTop    int
	target   [levels]int
}

func (q *queue) init(es entries) {
	q.es = es
	for i := range q.qs {
		q.qs[i] = newList()
	}
}

func (q *queue) level(i int32) *list { return &q.qs[q.es[i].level] }

func (q *queue) count(i int32, n int) {
	if !q.es[i].sentinel {
		q.n += n
	}
}

func (q *queue) push(i int32)      { q.count(i, 1); q.es.pushBack(q.level(i), i) }
func (q *queue) pushFront(i int32) { q.count(i, 1); q.es.pushFront(q.level(i), i) }
func (q *queue) remove(i int32)    { q.count(i, -1); q.es.remove(q.level(i), i) }

func (q *queue) pushBefore(old, i int32) {
	q.count(i, 1)
	q.es.pushBefore(q.level(i), old, i)
}

// peek is the oldest entry of the lowest level below most that has one. Without cross
// a level counts only up to its first sentinel.
func (q *queue) peek(most int, cross bool) int32 {
	for l := range min(most, levels) {
		if i, passed := q.es.first(&q.qs[l]); i != none && (cross || passed == 0) {
			return i
		}
	}
	return none
}

// requeue moves an entry up by extra levels and exchanges it for the oldest one there,
// which comes down to a place before the sentinels s that it has passed. s may be
// none.
func (q *queue) requeue(i int32, extra int, s [2]int32) {
	e := &q.es[i]
	to := uint8(min(levels-1, int(e.level)+extra))
	if extra > 0 && e.level < levels-1 {
		if down, passed := q.es.first(&q.qs[to]); down != none {
			q.remove(down)
			q.es[down].level = e.level
			if passed < 2 && s[passed] != none {
				q.pushBefore(s[passed], down)
			} else {
				q.push(down)
			}
		}
	}
	q.remove(i)
	e.level = to
	q.push(i)
}

// spread sets the targets of the levels [begin, end) to shares of n.
func (q *queue) spread(n, begin, end int) {
	width := end - begin
	if width == 0 {
		return
	}
	for l := begin; l < end; l++ {
		q.target[l] = n / width
		if l < begin+n%width {
			q.target[l]++
		}
	}
}

func (q *queue) setTargets() {
	if q.targetOf == q.n {
		return
	}
	q.targetOf = q.n
	q.spread(q.inTop, levels-q.top, levels)
	q.spread(max(0, q.n-q.inTop), 0, levels-q.top)
}

// redistribute moves entries to neighbouring levels until each has its target.
func (q *queue) redistribute() {
	q.setTargets()
	for l := range levels - 1 {
		this, above := &q.qs[l], &q.qs[l+1]
		for this.n < q.target[l] {
			i := q.lowestFrom(l + 1)
			if i == none {
				break
			}
			q.es.remove(q.level(i), i)
			q.es[i].level = uint8(l)
			q.es.pushBack(this, i)
		}
		for this.n > q.target[l] {
			i := q.es.popTail(this)
			q.es[i].level = uint8(l + 1)
			q.es.pushFront(above, i)
		}
	}
}

// lowestFrom is the oldest entry of the lowest level from l on that has one.
func (q *queue) lowestFrom(l int) int32 {
	for ; l < levels; l++ {
		if i, _ := q.es.first(&q.qs[l]); i != none {
			return i
		}
	}
	return none
}

// rate counts accesses to the upper quarter of a queue against all others: what is
// there was expected to be used.
type rate struct{ hits, misses uint32 }

func (r *rate) accessed(level uint8) {
	if level >= levels*3/4 {
		r.hits++
	} else {
		r.misses++
	}
}

func (r *rate) reset() { *r = rate{} }

// of256 is the share of hits in parts of 256.
func (r *rate) share(of uint32) uint32 {
	if r.hits+r.misses == 0 {
		return 0
	}
	return r.hits * of / (r.hits + r.misses)
}

// performance is how much the order of a queue can be trusted.
type performance uint8

const (
	poor performance = iota
	fair
	well
)

func (r *rate) assess() performance {
	switch c := r.share(256); {
	case c < 16:
		return poor
	case c < 32:
		return fair
	}
	return well
}
