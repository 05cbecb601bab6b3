// Package veritytools makes verity disks and reads what is written about them on disk:
// the superblock in front of a tree of hashes, and parity behind it, as veritysetup of
// cryptsetup does. docs/formats/verity.md describes both. What it finds or makes is a
// line for the target verity, which does all reading and checking.
package veritytools
