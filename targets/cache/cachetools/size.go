package cachetools

import "udm/blk"

// Size is the number of sectors of metadata that a cache of so many blocks, with hints of
// so many bytes, needs at most.
func Size(blocks, hintBytes uint64) uint64 {
	const (
		room  = 4 << 20 / blk.SectorSize // for transactions
		bytes = 24                       // of a mapping: twice in a transaction, and the rest
	)
	return room + blocks*(bytes+hintBytes)/blk.SectorSize
}
