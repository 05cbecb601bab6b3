package thinmeta

// Cached is the number of metadata blocks in the cache.
func (m *Metadata) Cached() int { return m.bm.Cached() }
