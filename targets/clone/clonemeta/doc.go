// Package clonemeta is the metadata of a clone device: which of its regions are
// hydrated, that is, on the destination. The format is that of the kernel's
// dm-clone-metadata.c.
//
// Only the owner, the device's queue, makes calls; they wait for metadata I/O. The
// package has no locks.
//
// An error of a method that changes something breaks the transaction: every change and
// Commit then returns it until Abort. [blk.NoSpace] from Commit says that nothing is
// lost: Commit goes on once there is space.
//
// # The superblock, block 0, XOR 257649492
//
//	  0 u32 csum | 4 u32 flags, 0 | 8 u64 blocknr, 0 | 16 uuid[16], 0
//	 32 u64 magic 0x8af27f64 | 40 u32 version, 1
//	 44 metadata space map root[128]
//	172 u64 region_size, sectors | 180 u64 target_size, sectors
//	188 u64 bitset_root
//
// All of it lies in the first sector, so that it is written atomically. bitset_root
// leads to a bitset with a bit for each region: 1 if it is hydrated.
package clonemeta
