// Package thintools works on a thin pool's metadata while nobody has the pool open,
// as thin-provisioning-tools do: check, mend, dump, restore, repair, list, compare,
// find what is unused, and size. Its XML is theirs, byte for byte.
//
// [Check], [Dump], [Diff], [List] and [Trim] only read, and trust nothing that they
// read. [Restore] and [Repair] write new metadata in one run, the superblock last:
// what is unfinished is no pool. [Mend] is one transaction of thinmeta.
package thintools

import "encoding/binary"

var le = binary.LittleEndian
