//go:build !race

package memdev

// pageLock does nothing: the outcome of a concurrent read and write of one sector
// is undefined on any disk, so torn data is allowed.
type pageLock struct{}

func (*pageLock) lock()    {}
func (*pageLock) unlock()  {}
func (*pageLock) rlock()   {}
func (*pageLock) runlock() {}
