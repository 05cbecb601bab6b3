package archive

import "sync"

// recent keeps what was loaded last, at most max values. It is safe for concurrent use. Lock
// order: mu is a leaf.
type recent[K comparable, V any] struct {
	max int

	mu    sync.Mutex
	held  map[K]*held[V] // guarded by mu; in memory or on their way
	order []K            // guarded by mu; of held, the oldest first
}

// held is a value that was, or is being, loaded.
type held[V any] struct {
	ready chan struct{} // closed when it was
	v     V
	err   error
}

// get returns the value of a key. Several that want one wait for one load. What could not be
// loaded is tried again next time.
func (r *recent[K, V]) get(key K, load func() (V, error)) (V, error) {
	h, loading := r.hold(key)
	if loading {
		<-h.ready
		return h.v, h.err
	}
	h.v, h.err = load()
	if h.err != nil {
		r.drop(key, h)
	}
	close(h.ready)
	return h.v, h.err
}

// hold returns what is held of a key, and whether somebody loads it or has loaded it.
func (r *recent[K, V]) hold(key K) (h *held[V], loading bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.held[key]; h != nil {
		return h, true
	}
	h = &held[V]{ready: make(chan struct{})}
	if r.held == nil {
		r.held = make(map[K]*held[V])
	}
	r.held[key] = h
	if r.order = append(r.order, key); len(r.order) > r.max {
		delete(r.held, r.order[0])
		r.order = r.order[1:]
	}
	return h, false
}

func (r *recent[K, V]) drop(key K, h *held[V]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[key] == h {
		delete(r.held, key)
	}
}
