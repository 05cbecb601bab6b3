// Package pdata is the device mapper's persistent-data library
// (drivers/md/persistent-data): checksummed 4096-byte metadata blocks, copy on
// write with reference counts, B+trees, arrays and bitsets. All of them change in
// transactions, and writing one block, the superblock, commits a transaction.
//
// # Layers
//
//	Super                   the superblock: commit, abort, needs_check, held root
//	Tree, Array, Bitset     what users store; SpaceMap of a data device
//	TM                      new, shadow, inc, dec, commit
//	SpaceMap                reference counts of the metadata device itself
//	BlockManager            cache, checksums, I/O
//	blk.Device
//
// # Transactions
//
// Between two commits, no block that the committed superblock can reach is
// written. Changing a block means shadowing it. The first shadow of a block in a
// transaction, or any shadow of a shared block, copies it to a block that is free
// in both the committed and the current state; the change goes to the copy. A
// block freed in a transaction can be reused only after the commit. Changed
// blocks may therefore reach the disk at any time and in any order. [Super]
// commits a transaction in steps, or aborts it. A transaction that has ended may
// still be written while the next one runs.
//
// # Who may call what
//
// One owner, a goroutine or a queue, makes all calls but the lookups below and
// [Sealed.Write]. Its calls wait for I/O. Any number of goroutines may call
// [Tree.TryLookup] at the same time; it reads only cached blocks and takes no lock.
// Readers see the
// blocks of trees as of the last [BlockManager.Publish]: the owner changes
// private copies of blocks and publishes all of them at once. A published page
// never changes again, except that writing it fills in its header (checksum and
// location). A reader that races with a Publish thus reads old but whole pages,
// sees that the version changed, and tries again.
//
// This package has no locks. Every field that is not atomic belongs to the owner.
//
// # Blocks on disk
//
// All numbers are little-endian. Every block begins with the CRC-32C of its bytes
// 4..4095 (seed ~0, no final inversion) XORed with a constant of its kind. Every
// block also stores its own location.
//
//	B+tree node, XOR 121107
//	  0 u32 csum | 4 u32 flags: 1 internal, 2 leaf | 8 u64 blocknr
//	  16 u32 nr_entries | 20 u32 max_entries, a multiple of 3
//	  24 u32 value_size | 28 u32 padding
//	  32 u64 keys[max_entries], sorted | then values[max_entries]
//	Bitmap, XOR 240779
//	  0 u32 csum | 4 u32 not_used | 8 u64 blocknr
//	  16 two bits for each of 16320 blocks, in u64 words: entry i has its HIGH
//	     bit at 2i and its low bit at 2i+1; 3 means "look in the ref_count tree"
//	Index of the metadata space map, XOR 160478
//	  0 u32 csum | 4 u32 padding | 8 u64 blocknr | 16 255 index entries
//	Index entry, 16 bytes
//	  0 u64 blocknr of the bitmap | 8 u32 nr_free | 12 u32 none_free_before
//	Space map root, 32 bytes of the 128 in a superblock
//	  0 u64 nr_blocks | 8 u64 nr_allocated | 16 u64 bitmap_root | 24 u64 ref_count_root
//	Array block, XOR 595846735
//	  0 u32 csum | 4 u32 max_entries | 8 u32 nr_entries | 12 u32 value_size
//	  16 u64 blocknr | 24 values
package pdata
