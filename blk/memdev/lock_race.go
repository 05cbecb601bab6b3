//go:build race

package memdev

import "sync"

// pageLock keeps overlapping bios, which a disk must survive, from being
// reported as data races of memdev.
type pageLock struct{ mu sync.RWMutex }

func (l *pageLock) lock()    { l.mu.Lock() }
func (l *pageLock) unlock()  { l.mu.Unlock() }
func (l *pageLock) rlock()   { l.mu.RLock() }
func (l *pageLock) runlock() { l.mu.RUnlock() }
