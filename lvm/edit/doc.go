// Package edit changes LVM2 volume groups on their disks, as LVM does, without LVM: it
// creates, extends and reduces groups, and creates, resizes, renames, moves and removes
// volumes, thin pools, thin volumes and snapshots.
//
//	ed, err := edit.New(e, group, author)   // or edit.Create and AddDisks
//	err = ed.CreateVolume(edit.Volume{Name: "root", Extents: 256})
//	err = ed.Commit()
//
// An Edit is a copy of the group's text, which its methods change. What the model does
// not know stays as it was. After each method the whole text is decoded and checked as
// if it were read from a disk, so no text is written that this package could not use.
//
// Nobody else may use the disks between the scan and the end of the commit: the caller
// holds them open for writing, which locks them. If volumes are active, the disks are
// those of their daemon (package activation), which sends messages to active pools
// ([Edit.UsePools]) and gives devices their new tables after the commit.
//
// # Commit
//
// Each step is durable before the next one starts. What a power cut during or after a
// step leaves:
//
//  1. New disks are initialised: their areas without a text, then their labels. The
//     group is as before; the disks are physical volumes of no group.
//  2. The start of new volumes is zeroed, and volumes that move are copied. Nothing uses
//     these extents yet.
//  3. The new text is written into each area, behind the committed one, which stays
//     whole. Nothing refers to it.
//  4. Each header gets the new text as the precommitted one, as in LVM. Only a command
//     that is about to commit looks at it.
//  5. Each header gets the new text as the committed one: a write of one sector. The
//     first one commits the group, because the highest seqno counts. Areas left behind
//     have the old text until the next commit.
//  6. The labels of new disks say that they are in use. LVM accepts disks that lack this,
//     with a warning, and the next commit writes it.
//  7. The areas of disks that left the group lose their text, and then their labels say
//     that they are in no group. Until then they are told of as removed, and
//     [Edit.RemoveDisk] completes it.
//
// An error in steps 1 to 3 leaves the group as before. After an error in step 4 the
// headers are written back. In step 5 the other areas are still written;
// [lvm.Incomplete] says that the group has changed all the same.
//
// # Thin pools
//
// The volumes of a pool are in the group's text and in the pool's metadata. So a commit
// that creates or deletes thin volumes has three parts:
//
//  1. the text has the messages for the pool, and a transaction id one higher;
//  2. the pool carries out the messages and takes that id, in one transaction;
//  3. the text has no messages any more.
//
// A power cut after the first part leaves a pool whose id is one lower than the text's.
// udm sends the messages when the pool is activated, this package before the next change
// of the pool, and so does LVM; until then LVM cannot activate the new volumes. If both
// ids are equal, the messages have been carried out.
//
// # Allocation
//
// Extents come from disks that are present and allocatable. A linear volume grows where
// it ends, else it gets the smallest free run that holds all of it, else the largest ones.
// A striped volume gets the largest run of each of the disks with the most room, so no
// disk is in a stripe twice.
package edit
