// Package erameta is the metadata of an era device: in which era each block was last
// written. The format is that of the kernel's dm-era-target.c and of the era tools.
//
// # Eras
//
// An era is a number that only grows. The blocks that are written in the running era
// are the bits of its writeset. [Metadata.Rollover] ends the era: its writeset is
// archived, and the next one begins with an empty writeset. Archived writesets are
// digested in the background ([Metadata.Digest]), oldest first: the era array gets
// the era of each block in the set, and then the set is removed. A crash in the
// middle leaves the set, and it is digested again, with the same result.
//
// # Who may call what
//
// Only the owner, the device's queue, makes calls; they wait for metadata I/O. The
// package has no locks.
//
// # Errors
//
// EINVAL from Hold and Release leaves everything unchanged. Any other error of a
// method that changes something breaks the transaction: every change and Commit then
// returns it until Abort. [blk.NoSpace] from Commit says that nothing is lost: Commit
// goes on once there is space.
//
// # The superblock, block 0, XOR 146538381
//
//	  0 u32 csum | 4 u32 flags, 0 | 8 u64 blocknr, 0 | 16 uuid[16], 0
//	 32 u64 magic 2126579579 | 40 u32 version, 1
//	 44 metadata space map root[128]
//	172 u32 data_block_size, sectors | 176 u32 metadata_block_size, 8 sectors
//	180 u32 nr_blocks | 184 u32 current_era
//	188 current writeset: u32 nr_bits | 192 u64 root; 0: the era has ended
//	200 u64 writeset_tree_root | 208 u64 era_array_root
//	216 u64 metadata_snap, block of the metadata snapshot; 0: none
//
// All of it lies in the first sector, so that it is written atomically.
//
// writeset_tree_root leads to a tree from era to writeset (u32 nr_bits, u64 root of a
// bitset), era_array_root to an array of a u32 for each block: the era of the newest
// digested writeset that has it, 0 for none. A metadata snapshot is a copy of the
// superblock, whose two trees are kept.
package erameta
