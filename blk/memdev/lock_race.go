//go:build race

package memdev

import "sync"

// pageLock keeps the race detector from reporting overlapping bios, which a disk
// must survive, as data races in memdev.
type pageLock struct{ mu sync.RWMutex }

func (l *pageLock) lock()    { l.mu.Lock() }
func (l *pageLock) unlock()  { l.mu.Unlock() }
func (l *pageLock) rlock()   { l.mu.RLock() }
func (l *pageLock) runlock() { l.mu.RUnlock() }
