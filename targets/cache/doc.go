// Package cache is the target "cache" (drivers/md/dm-cache-target.c): a fast device holds
// the blocks of a slow one, the origin, that are used most. [Type]'s Doc is its manual,
// cachemeta says what is on disk, and docs/formats/cache.md how to look at it.
//
// # Parts
//
//	cache      a cache line of a table
//	store      the metadata, shared by all tables of one device, and its queue
//	smq        the policy: which blocks are to be promoted, demoted, written back
//	migration  one of these, under way
//
// # Life of a bio
//
// Bios are cut at blocks. The policy is asked under one lock, and no bio of a block that
// is in the cache, or that is not and stays out, waits for anything else:
//
//	Map ─ the block is locked ───────────────────► waits in the migration
//	 ├─ hit ─────────────────────────────────────► cache; a write makes it dirty
//	 ├─ hit, write, writethrough, clean ─────────► both devices at the same time
//	 ├─ hit, write, passthrough ─────────────────► taken out of the cache, then origin
//	 ├─ miss ────────────────────────────────────► origin; the policy may want a promotion
//	 └─ miss, write of a whole block, writeback ─► may be the promotion itself
//
// # Migrations
//
// All steps are works of the store's queue, the owner, which alone calls the metadata.
//
//	promote    lock writes ─ quiesce ─ copy to cache ─ lock reads ─ quiesce ─ insert ─ unlock
//	overwrite  lock all ─ quiesce ─ the bio writes to cache ─ insert ─ unlock ─ bio ends
//	demote     lock writes ─ quiesce ─ copy to origin if dirty ─ lock reads ─ quiesce ─
//	           remove ─ commit ─ unlock
//	writeback  lock writes ─ quiesce ─ copy to origin ─ unlock, clean
//	invalidate lock all ─ quiesce ─ remove ─ commit ─ unlock ─ bio goes to origin
//
// To lock is to enter the block into cache.locks; a bio enters the set of bios in flight,
// reads or writes, under the same lock under which it found its block unlocked. To
// quiesce is to wait for all that is in the set, of whatever block.
//
// # What a power cut leaves
//
// Nothing of the metadata on disk says which blocks are dirty while a cache is in use:
// after a power cut all of them are, and what is read of a block that the metadata knows
// is what the cache device has. So there are two promises to keep. What a flush has
// covered is where the metadata on disk says that it is, and a block of the cache is not
// used again while they say something else of it.
//
//	1 a block is copied, or written by a bio     metadata do not know it: the origin's
//	  (overwrite); nothing was answered yet      content, which is the old one
//	2 the mapping is inserted in memory, the     the same; what was answered was not
//	  bio is answered                            flushed
//	3 a flush comes: commit flushes the cache    the same
//	  device, if blocks were copied to it,
//	  and the origin, if blocks were copied back
//	4 the metadata are committed                 the block's content in the cache
//	5 the flush goes to both devices             the block's content in the cache
//
// A demoted block is copied to the origin, which step 3 flushes before step 4 commits
// that it is in the cache no more; only after that the block of the cache is free. A
// block that is written back stays mapped, and after a power cut it is dirty again,
// with the same content. (The kernel flushes neither device before a commit: with
// volatile caches of their own it may lose what was flushed.)
//
// When the cache is suspended, both devices are flushed, and dirty bits, hints and
// discards are committed with the flag that says that they hold. Before the next bio the
// flag is taken back, in a commit of its own. (The kernel takes it back with the first
// commit that something else causes.)
// A demotion whose commit finds no space is left until there is some: a resume, or another
// table, begins with that commit.
//
// # Failures
//
// A failed copy leaves everything as it was; nothing is begun in the background for a
// second. If the metadata cannot be changed, they go back to the last commit, needs_check
// is set, and the cache is read-only: what is in memory stays right, dirty blocks are
// written back, nothing is promoted or demoted. If changes were lost, flushes fail,
// because the disk does not have all mappings under which writes were answered. A
// metadata device without space for the moment ends flushes with [blk.NoSpace]; what
// waits for a commit waits on.
//
// # Lock order
//
//	stores.mu          (env.Mutex; held around waits for the owner)
//	└─ cache.mu
//	   └─ locks of the deferred sets, of env and of the device's event
//
// No I/O is submitted and no bio ended under cache.mu.
package cache

import "udm/dm"

const throttleParam = "dm_cache.cache_copy_throttle"

// Type is the target type "cache". Pass it to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{
		Name: "cache", Version: [3]uint32{2, 3, 0},
		New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc,
		Params: []*dm.Param{dm.NewParam(throttleParam, 100, "percent of the time in which blocks may be copied between a cache and its origin")},
	}
}

const doc = `cache: a fast device in front of a slow one

Table:
  cache METADATA CACHE ORIGIN BLOCK N [FEATURE...] POLICY K [KEY VALUE...]
    METADATA  the device that says what is in the cache; zero its first 4 KiB to
              make a new cache; udm cache size tells how large it has to be
    CACHE     the fast device; its whole blocks are used
    ORIGIN    the slow device; it must be as long as the target at least. A target
              that is shorter than before leaves out the blocks beyond its end; it
              is not resumed while one of them is dirty
    BLOCK     sectors in a block: 64 (32 KiB) to 2097152 (1 GiB), a multiple of 64
    N         number of the words that follow, up to 3:
      writeback            writes end when they are in the cache (the default)
      writethrough         writes end when they are on both devices
      passthrough          all goes to the origin; what is written leaves the cache
      metadata2            new metadata has its dirty bits in a bitset
      no_discard_passdown  discards do not reach the origin
    POLICY    smq (or default); mq, the same with settings that mean nothing; or
              cleaner, which writes everything back and takes nothing in
    K         number of the words that follow:
      migration_threshold SECTORS  so many are copied at a time (2048)

Messages (dmsetup message NAME 0 ...):
  migration_threshold SECTORS
  invalidate_cblocks BLOCK|BEGIN-END ...   take blocks out of the cache; only with
                                           passthrough; END is not among them

Status (dmsetup status):
  8 USED/METADATA BLOCK RESIDENT/BLOCKS RHIT RMISS WHIT WMISS DEMOTED PROMOTED DIRTY
  N FEATURE... 2 migration_threshold SECTORS POLICY K [KEY VALUE...] MODE CHECK
    METADATA  blocks of 4 KiB
    BLOCKS    blocks of the cache device
    RHIT ...  reads and writes that found their block in the cache, or did not
    DIRTY     blocks that differ from the origin's
    MODE      rw or ro
    CHECK     needs_check if the metadata must be checked before use, or -
  or Fail.

Example: 100 GiB on a slow disk behind 10 GiB on a fast one
  0 209715200 cache /srv/meta.img /srv/fast.img /srv/slow.img 128 1 metadata2 smq 0
`
