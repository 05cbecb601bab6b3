package thinrescue

import (
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// summary sums up the mappings below a node.
type summary struct {
	mapped   uint64
	low, end uint64 // the first key, and the one after the last
	level    int8   // -1: not known
	whole    bool
}

// survey reads all of a volume.
func (p *Pool) survey(v *Volume) {
	v.Mapped, v.Searched, v.End, v.Missing, v.Gaps = 0, 0, 0, nil, 0
	if v.root == 0 {
		if v.rootless == Lost {
			v.miss(0, NoEnd)
			p.surveyOlder(v)
		}
		return
	}
	s := p.visit(v, v.root, allKeys, 0, v.Found)
	v.Mapped, v.End = s.mapped, max(v.End, s.end)
	p.surveyOlder(v)
}

// surveyOlder goes through what is lost for what older trees have of it. There may be
// more of it than is listed.
func (p *Pool) surveyOlder(v *Volume) {
	if len(v.older) == 0 || len(v.Missing) == 0 {
		return
	}
	lost := v.Missing
	if v.Gaps > len(lost) {
		lost = []Range{{0, NoEnd}}
	}
	v.Missing, v.Gaps = nil, 0
	for _, l := range lost {
		for at := l.Begin; at < l.End; {
			r := v.Find(at, l.End)
			switch {
			case r.State == Lost:
				v.miss(at, at+r.Len)
			case r.older:
				v.Mapped, v.Searched, v.End = v.Mapped+r.Len, v.Searched+r.Len, max(v.End, at+r.Len)
			}
			at += r.Len
		}
	}
}

// visit reads a node of a volume and what is below it. found says that it was found by
// search.
func (p *Pool) visit(v *Volume, nr uint64, s span, depth int, found bool) summary {
	if k := p.known.at(nr); k != nil && k.whole && k.low >= s.low && k.end <= s.high {
		return p.count(v, *k, found)
	}
	n, err := p.node(nr, s, 8, depth)
	if err != nil {
		return p.visitLost(v, nr, s, depth, found)
	}
	p.reached.Add(nr, nr+1)
	if !n.Internal() {
		return p.count(v, p.visitLeaf(v, n, s), found)
	}
	sum := p.visitChildren(v, n, s, depth, found)
	if sum.whole {
		*p.known.make(nr) = sum
	}
	return sum
}

// visitLeaf counts mappings. One to a data block that there is not is lost.
func (p *Pool) visitLeaf(v *Volume, n pdata.Leaf, s span) summary {
	sum := summary{low: s.high, whole: true}
	for i := range n.Len() {
		if p.beyond(thinmeta.BlockTimeOf(le.Uint64(n.Value(i))).Block) {
			v.miss(n.Key(i), n.Key(i)+1)
			sum.whole = false
			continue
		}
		sum.mapped++
	}
	if n.Len() > 0 {
		sum.low, sum.end = n.Key(0), n.Key(n.Len()-1)+1
	}
	return sum
}

// beyond reports whether there is no such data block.
func (p *Pool) beyond(block uint64) bool { return p.DataBlocks != 0 && block >= p.DataBlocks }

func (p *Pool) count(v *Volume, s summary, found bool) summary {
	if found {
		v.Searched += s.mapped
	}
	return s
}

func (p *Pool) visitChildren(v *Volume, n pdata.Leaf, s span, depth int, found bool) summary {
	sum := summary{whole: true, level: -1, low: n.Key(0)}
	for j := range n.Len() {
		c := p.visit(v, le.Uint64(n.Value(j)), s.child(n, j), depth+1, found)
		sum.mapped += c.mapped
		sum.end = max(sum.end, c.end)
		sum.whole = sum.whole && c.whole
		if c.level >= 0 {
			sum.level = c.level + 1
		}
	}
	for j := range n.Len() {
		if l := p.lost[le.Uint64(n.Value(j))]; l != nil && sum.level > 0 {
			l.level = int(sum.level) - 1
		}
	}
	return sum
}

// visitLost goes through what stands in for a damaged node.
func (p *Pool) visitLost(v *Volume, nr uint64, s span, depth int, found bool) summary {
	l := p.lost[nr]
	if l == nil {
		l = &lost{span: s, level: -1}
		p.lost[nr] = l
		p.damaged(nr)
	}
	l.low, l.high = min(l.low, s.low), max(l.high, s.high)
	sum, at := summary{level: -1}, s.low
	for _, in := range l.stands {
		if in.low < s.low || in.high >= s.high || depth == maxDepth {
			continue
		}
		if !l.complete && at < in.low {
			v.miss(at, in.low)
		}
		c := p.visit(v, in.nr, span{in.low, in.high + 1}, depth+1, found || !l.complete)
		sum.mapped, sum.end, at = sum.mapped+c.mapped, max(sum.end, c.end), in.high+1
	}
	if !l.complete {
		v.miss(at, s.high)
	}
	return sum
}

// maxMissing is how many ranges are listed.
const maxMissing = 10000

// miss notes a range whose mappings are lost. Ranges come in order.
func (v *Volume) miss(begin, end uint64) {
	if begin == end {
		return
	}
	v.End = max(v.End, begin)
	if end != NoEnd {
		v.End = max(v.End, end)
	}
	if n := len(v.Missing); n > 0 && v.Gaps == n && v.Missing[n-1].End == begin {
		v.Missing[n-1].End = end
		return
	}
	if v.Gaps++; v.Gaps <= maxMissing {
		v.Missing = append(v.Missing, Range{begin, end})
	}
}
