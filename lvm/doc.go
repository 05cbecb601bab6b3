// Package lvm reads LVM2 volume groups: the labels and metadata areas of disks
// (label.go, area.go), the text in them as a typed model (vg.go, lv.go, segment.go; the
// text itself is package text), the choice among its copies (scan.go, assemble.go), and
// the tables that LVM would load for its volumes (name.go, tree.go).
//
// # Layout of a physical volume
//
//	sector 0…3   one of them, the second in LVM's own, is the label: id, its own sector,
//	             checksum, and behind it the header of the physical volume: its UUID and
//	             the places of its data and metadata areas
//	areas        each begins with a sector of its own: checksum, id, place, and the
//	             place and checksum of the committed text; behind it a ring of texts
//	data         extents, of a size that the group's text says
//
// A checksum is CRC-32 with LVM's own beginning and without the final inversion.
//
// # What is trusted
//
// Nothing: sizes are bounded before memory is taken for them, a text is used only if its
// checksum is right, and a group only if all of it is understood that a table is made of:
// segments that follow one another, names that exist, extents inside their disks and
// used once. What is not understood is an error that names the disk, the byte, the
// line or the path in the text: [*DiskError], [*text.Error], [*GroupError].
//
// # Choice among copies
//
// Each area that is in use holds a text. The highest seqno of those whose checksums are
// right is the group's; areas that hold an older one are told of. Two texts of the same
// seqno that differ, or two disks with the same UUID, make the group unusable: nobody can
// tell which of them is right.
package lvm
