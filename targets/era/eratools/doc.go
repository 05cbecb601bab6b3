// Package eratools works on the metadata of an era device while no program has it open,
// as the era tools of thin-provisioning-tools do: check, dump, restore, and list what was
// written since an era. Its XML is theirs.
//
// [Check], [Dump] and [WrittenSince] only read, and trust nothing that they read. They
// count the running era's writeset, which is there after a power cut, as one that is
// archived. [Restore] writes new metadata in one run and the superblock last.
package eratools

import "encoding/binary"

var le = binary.LittleEndian
