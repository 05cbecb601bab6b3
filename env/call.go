package env

import "sync/atomic"

// Call runs fn on a queue and waits, by w, until it has run. It must not be called from a
// work of the queue.
func Call(q Queue, w Wait, fn func()) {
	var done atomic.Bool
	q.Queue(NewWork(func() {
		fn()
		done.Store(true)
		w.Wake()
	}))
	w.Until(done.Load)
}
