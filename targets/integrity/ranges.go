package integrity

import "slices"

// span is a range of sectors of data.
type span struct{ sector, sectors uint64 }

func (s span) end() uint64 { return s.sector + s.sectors }

func (s span) overlaps(o span) bool { return s.sector < o.end() && o.sector < s.end() }

// acquire waits until no acquired span overlaps s, nobody waits for all sectors, and ready, if
// not nil, returns true, and then acquires s. ready is called with mu held.
func (g *integrity) acquire(s span, ready func() bool) {
	g.wait.Until(func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.all || slices.ContainsFunc(g.spans, s.overlaps) || ready != nil && !ready() {
			return false
		}
		g.spans = append(g.spans, s)
		return true
	})
}

func (g *integrity) release(s span) {
	g.mu.Lock()
	i := slices.Index(g.spans, s)
	last := len(g.spans) - 1
	g.spans[i] = g.spans[last]
	g.spans = g.spans[:last]
	g.mu.Unlock()
	g.wait.Wake()
}

// acquireAll waits until no spans are acquired, and prevents that others are until releaseAll.
func (g *integrity) acquireAll() {
	g.mu.Lock()
	g.all = true
	g.mu.Unlock()
	g.wait.Until(func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.spans) == 0
	})
}

func (g *integrity) releaseAll() {
	g.mu.Lock()
	g.all = false
	g.mu.Unlock()
	g.wait.Wake()
}
