// Package thinrescue reads thin pools whose metadata are damaged. It finds each volume
// whose mappings can be found, and tells which ranges are lost, and which were found by
// search and may therefore be out of date, or of another volume. It writes nothing.
//
// [Examine] reads metadata, [Volume.Find] looks up blocks, [Volume.Copy] copies a volume,
// and [Type] is a target that serves one. The format is described in thinmeta and pdata.
//
// # Method
//
// If the superblock is undamaged, what it leads to without a gap is certain. Volumes are
// read as far as they can be; nothing else is looked at unless something is damaged.
// Otherwise every block is examined, and its checksum, location and form decide whether
// it is a node. Then
//
//   - if the superblock is damaged, device trees are paired with details that fit them: of the
//     same ids, and for each volume as many mappings as the details say. Of these states of the
//     pool the last one is chosen by the times in them (order.go), as nodes have no generation;
//     if details are later than all of them, the device tree of the last state is lost, and the
//     details count alone. So all of this is by search. The fields of the damaged superblock
//     are taken if they lead to whole trees that fit;
//   - volumes that have details and no root get one that is in use, more often than is
//     accounted for, and has as many mappings as the details say: that which they had in an
//     older device tree, or else that which has most in common with it (match.go);
//   - below a damaged inner node were nodes that nothing leads to now. If the space map, or
//     their level, says that they are in use, and if they can have been below one damaged node
//     only, they stand in for it. Once a volume has as many mappings as its details say,
//     nothing is missing, and what was found is certain;
//   - roots that are in use and that nothing claims are volumes without a number, @ROOT;
//   - what is lost may be read as older transactions had it, if that is wished for, or if
//     the trees themselves are lost.
//
// A lost range is one of which it is not known what it is mapped to. It is not a hole.
//
// # Bounds
//
// Memory is at most 100 bytes for each block of the metadata device, which has at most four
// million; nodes are read once while all blocks are read, and inner ones a few times more.
// Not more than 256 roots of a kind, 4096 damaged inner nodes and a million volumes are
// compared; of two states, 64 leaves of mappings. Descents are bounded by depth and by the keys
// of parents, so that damaged trees end.
//
// # What cannot be told
//
// A block that was not written although the disk said so holds an older node with a
// right checksum at the right place. Nothing in the format tells.
package thinrescue
