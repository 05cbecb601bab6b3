//go:build !race

package memdev

// pageLock does nothing: what a read and a write of one sector at the same time
// see of one another is undefined on any disk, and bytes may tear freely.
type pageLock struct{}

func (*pageLock) lock()    {}
func (*pageLock) unlock()  {}
func (*pageLock) rlock()   {}
func (*pageLock) runlock() {}
