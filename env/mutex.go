package env

import "sync"

// Mutex is a lock whose holder may wait in [Wait.Until]. Use it to serialise
// control operations. In a simulator, a caller that waits for it yields to the
// scheduler.
type Mutex struct {
	wait Wait
	mu   sync.Mutex
	held bool // guarded by mu
}

// NewMutex returns an unlocked Mutex.
func NewMutex(e Env) *Mutex { return &Mutex{wait: e.NewWait()} }

// Lock waits until the mutex is free and takes it.
func (m *Mutex) Lock() { m.wait.Until(m.TryLock) }

// TryLock takes the mutex if it is free.
func (m *Mutex) TryLock() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		return false
	}
	m.held = true
	return true
}

// Unlock frees the mutex.
func (m *Mutex) Unlock() {
	m.mu.Lock()
	m.held = false
	m.mu.Unlock()
	m.wait.Wake()
}
