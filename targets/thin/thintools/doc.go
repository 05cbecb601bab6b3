// Package thintools works on the metadata of a thin pool while no program has the
// pool open, as thin-provisioning-tools does: check, mend, dump, restore, repair,
// list, compare, find unused blocks, and estimate sizes. Its XML is identical to
// theirs.
//
// [Check], [Dump], [Diff], [List] and [Trim] only read, and trust nothing that they
// read. [Restore] and [Repair] write new metadata in one run and the superblock last:
// unfinished metadata is not recognized as a pool. [Mend] is one transaction of
// thinmeta.
package thintools

import "encoding/binary"

var le = binary.LittleEndian
