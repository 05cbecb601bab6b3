// Package thinmeta is the metadata of a thin pool: which data block each block of
// each thin device is mapped to, which blocks are shared, and which are free. The
// format is that of the kernel's dm-thin-metadata.c and of thin-provisioning-tools.
//
// # Who may call what
//
// Only the owner, the pool's queue, makes calls, which wait for metadata I/O. The
// exception is [Thin.TryFind], which any goroutine may call at any time: it takes no
// lock, does no I/O and allocates nothing. It sees the state that the owner's last
// call left, but for a block that was unmapped before it may answer that only the
// owner knows. The package has no locks; fields belong to the owner unless they are
// atomic.
//
// # Errors
//
// Errors are syscall.Errno values as in the kernel: EEXIST, ENODATA, EBUSY, EINVAL,
// EPERM when read-only, EAGAIN from TryFind, and ENOSPC, unwrapped, from
// AllocDataBlock. [ErrMetadataFull] wraps ENOSPC. *pdata.Corrupt says what is damaged
// and where; a blk.Status is the result of an I/O. The errors named in a method's
// comment leave everything unchanged. Any other error of a method that changes
// something breaks the transaction: every change and Commit returns that error until
// Abort.
//
// # The superblock, block 0, XOR 160774
//
//	  0 u32 csum | 4 u32 flags: bit 0 needs_check | 8 u64 blocknr, 0
//	 16 uuid[16] | 32 u64 magic 27022010 | 40 u32 version, 2 | 44 u32 time
//	 48 u64 trans_id | 56 u64 held_root, 0: none
//	 64 data space map root[128] | 192 metadata space map root[128]
//	320 u64 data_mapping_root | 328 u64 device_details_root
//	336 u32 data_block_size, sectors | 340 u32 metadata_block_size, 8 sectors
//	344 u64 metadata_nr_blocks, as formatted
//	352 u32 compat_flags | 356 u32 compat_ro_flags | 360 u32 incompat_flags
//
// All of it lies in the first sector, so that it is written atomically.
//
// # Trees
//
// data_mapping_root leads to a tree from device id to the root of a tree from
// thin block to data_block<<24 | time, where time is the pool's when the block
// was mapped, modulo 2^24. A block is shared if its device was snapshotted
// since. device_details_root leads to a tree from device id to
//
//	0 u64 mapped_blocks | 8 u64 transaction_id | 16 u32 creation_time
//	20 u32 snapshotted_time
//
// A data block's reference count is the number of leaves that name it.
//
// Ids above [MaxID] belong to devices that are being deleted: see
// [Metadata.DetachThin].
package thinmeta
