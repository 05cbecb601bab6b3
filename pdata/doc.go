// Package pdata is the device mapper's persistent-data library
// (drivers/md/persistent-data): checksummed 4096-byte metadata blocks, copy on
// write with reference counts, B+trees, arrays and bitsets, all changed by
// transactions that a single block write, the superblock's, makes real.
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
// Between two commits nothing that the committed superblock can reach is ever
// written. A block is changed by shadowing it: the first time in a transaction,
// or when it is shared, it is copied to a block that is free both in the
// committed and in the current state, and the copy is changed. A block freed in
// a transaction can be used again after the commit only. Therefore changed
// blocks may reach the disk at any time and in any order. [Super] makes a transaction
// real, in steps, or gives it up.
//
// # Who may call what
//
// One owner, a goroutine or a queue, calls everything. Its calls wait for I/O.
// Beside it any number of goroutines may call [BlockManager.Read] to look
// things up in what is cached. They take no lock. They see the blocks of trees
// as they were at the last [BlockManager.Publish]: the owner changes private
// copies of blocks and shows all of them at once. A page that was shown is
// never changed again (its checksum and nothing else is filled in when it is
// written), so a reader that is overtaken by a Publish reads old but whole
// pages, notices that the version moved on, and tries again.
//
// There is no lock in this package. What a field's comment does not call
// atomic belongs to the owner.
//
// # Blocks on disk
//
// All numbers are little-endian. Every block begins with the CRC-32C of its
// bytes 4..4095 (seed ~0, not inverted at the end) XORed with a constant of its
// kind, and names its own location.
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
