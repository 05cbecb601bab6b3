// Package cachemeta is the metadata of a cache (drivers/md/dm-cache-metadata.c): which
// block of the origin is in which block of the cache, which of those are dirty, what the
// policy wants to remember, and which parts of the origin are discarded.
//
// One owner calls it, as [pdata] demands; see there for transactions and commits.
//
// # Superblock, block 0, XOR 9031977
//
//	  0 u32 csum | 4 u32 flags: 1 clean shutdown, 2 needs_check | 8 u64 blocknr
//	 16 uuid[16] | 32 u64 magic 06142003 (octal) | 40 u32 version: 1, 2
//	 44 policy_name[16] | 60 u32 policy_hint_size
//	 64 root of the metadata space map[128]
//	192 u64 mapping_root | 200 u64 hint_root: 0 if there is none | 208 u64 discard_root
//	216 u64 discard_block_size: sectors | 224 u64 discard_nr_blocks
//	232 u32 data_block_size: sectors | 236 u32 metadata_block_size: 8
//	240 u32 cache_blocks | 244 u32 compat | 248 u32 compat_ro | 252 u32 incompat
//	256 u32 read_hits | 260 u32 read_misses | 264 u32 write_hits | 268 u32 write_misses
//	272 u32 policy_version[3] | 284 u64 dirty_root: version 2 only
//
// # What it points to
//
//	mappings   array of u64, one for each block of the cache:
//	           block of the origin << 16 | flags: 1 valid, 2 dirty (version 1 only)
//	dirty      bitset, one bit for each block of the cache (version 2 only)
//	hints      array of u32, one for each block of the cache
//	discards   bitset, one bit for each discard_block_size sectors of the origin
//
// # The clean-shutdown flag
//
// Dirty bits, hints and discards are written when the cache is suspended, and only then,
// in one transaction with the flag. The flag is taken back, in a transaction of its own,
// before the first bio comes through ([Metadata.Begin]). Without the flag all three are
// what they were once: all mapped blocks count as dirty, and nothing as discarded.
package cachemeta
