package integrity

import "slices"

// span is a range of sectors that somebody reads or writes.
type span struct{ sector, sectors uint64 }

func (s span) end() uint64 { return s.sector + s.sectors }

func (s span) overlaps(o span) bool { return s.sector < o.end() && o.sector < s.end() }

// acquire waits until nobody else has a part of s and ready, called under mu, says yes,
// and then has s.
func (g *integrity) acquire(s span, ready func() bool) {
	g.wait.Until(func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		if slices.ContainsFunc(g.spans, s.overlaps) || ready != nil && !ready() {
			return false
		}
		g.spans = append(g.spans, s)
		return true
	})
}

// release undoes acquire.
func (g *integrity) release(s span) {
	g.mu.Lock()
	i := slices.Index(g.spans, s)
	last := len(g.spans) - 1
	g.spans[i] = g.spans[last]
	g.spans = g.spans[:last]
	g.mu.Unlock()
	g.wait.Wake()
}
