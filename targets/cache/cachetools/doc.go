// Package cachetools works on the metadata of caches that nobody has open: it checks,
// dumps, restores and repairs them and writes dirty blocks back, as the programs
// cache_check, cache_dump, cache_restore, cache_repair and cache_writeback of
// thin-provisioning-tools do.
//
// Dirty bits of metadata of version 2 are in a bitset, which the programs of release 0.9
// do not look at; here they are read as those of release 1 do.
package cachetools

import "encoding/binary"

var le = binary.LittleEndian
