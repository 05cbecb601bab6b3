// Package thinmeta is the metadata of a thin pool: which data block each block
// of each thin device is mapped to, who shares it, and what is free. The format
// is that of the kernel's dm-thin-metadata.c and of thin-provisioning-tools.
//
// # Who may call what
//
// One owner, the pool's queue, makes all calls; they wait for metadata I/O. The
// only call for other goroutines, at any time, is [Thin.TryFind]: it takes no
// lock, does no I/O, allocates nothing, and sees the state that the last call
// of the owner left; of a block that was not mapped before, it may say that only
// the owner knows. There is no lock in this package; fields belong to the owner
// unless their comment says atomic.
//
// # Errors
//
// A syscall.Errno as in the kernel: EEXIST, ENODATA, EBUSY, EINVAL, EPERM when
// read-only, EAGAIN from TryFind, ENOSPC (itself, not wrapped) from
// AllocDataBlock. [ErrMetadataFull] wraps ENOSPC. *pdata.Corrupt tells what is
// damaged and where, a blk.Status what became of an I/O. The errors that a
// method's comment names leave everything as it was. After any other error of a
// method that changes something the transaction is broken: every change and
// Commit return that error until Abort.
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
// All of it lies in the first sector, so that its write is atomic.
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
// Ids above [MaxID] are of devices that are being deleted: see [Metadata.DetachThin].
package thinmeta
