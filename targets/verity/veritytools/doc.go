// Package veritytools creates verity disks and reads their superblocks, as cryptsetup's
// veritysetup does: the superblock, the hash tree after it, and the parity.
// docs/formats/verity.md describes the formats. The result is a table line for the target
// verity, which does all reading and verification.
package veritytools
