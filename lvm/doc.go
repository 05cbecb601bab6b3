// Package lvm reads and writes LVM2 volume groups: the labels and metadata areas of disks
// (label.go, area.go), the text in them as a typed model (vg.go, lv.go, segment.go;
// package text parses the text), the selection among its copies (scan.go,
// assemble.go), the tables that LVM would load for its volumes (name.go, tree.go), and
// the commit of a new text (commit.go, copywriter.go). Package edit makes new texts.
//
// # Layout of a physical volume
//
//	sector 0…3   one of them, usually the second, is the label: id, its own sector,
//	             checksum, and then the header of the physical volume: its UUID and
//	             the places of its data and metadata areas
//	areas        each starts with a sector of its own: checksum, id, place, and the
//	             place and checksum of the committed text; then a ring of texts
//	data         extents, of a size given in the group's text
//
// A checksum is CRC-32 with LVM's own initial value and without the final inversion.
//
// # What is trusted
//
// Nothing is trusted: sizes are bounded before memory is allocated for them. A text
// is used only if its checksum is right. A group is used only if everything that
// tables are made from is valid and supported: segments that follow one another,
// names that exist, extents inside their disks and used once. Errors name the disk,
// the byte, the line or the path in the text: [*DiskError], [*text.Error],
// [*GroupError].
//
// # Choice among copies
//
// Each area in use holds a text. Among texts with valid checksums the one with the
// highest seqno counts; areas with an older one are reported. If two texts of the
// same seqno differ, or two disks have the same UUID, the group is unusable, because
// it is ambiguous which is right.
package lvm
