// Package writecache is the target "writecache" (drivers/md/dm-writecache.c) in its mode
// for block devices: writes go to a fast device, the cache, and from there to a slow one,
// the origin. Reads never bring anything into the cache. [Type]'s Doc is its manual.
//
// # On disk
//
// The cache device has, from the sector start_sector on, in little-endian:
//
//	offset         size  what
//	0              4     magic 0x23489321
//	4              4     version 1
//	8              4     block size in bytes
//	12             4     0
//	16             8     n, the number of blocks
//	24             8     the sequence count of the superblock
//	32             32    0
//	64 + 16 i      8     entry of block i: the sector that it holds, on the device
//	72 + 16 i      8     its sequence count; all ones: free
//	64 + 16 n …    bs n  the blocks, from the next multiple of the block size on
//
// An entry counts if its sequence count is smaller than the superblock's. Of two that
// count and have the same sector the one with the larger sequence count is newer.
//
// # Life of a block
//
//	free ─ a write ─► filling ─ it ends ─► live ─► writing ─ copied ─► leaving ─► free
//	                     └─ it fails ──────► │ ◄──────┘ (an error)       ▲
//	                                         └─ a discard ───────────────┘
//
//	Map ─ read, the block is live or writing ────────► cache
//	 ├─ read, it is in no block, or in one leaving ──► origin
//	 ├─ write, live ─────────────────────────────────► cache, where it is
//	 ├─ write, writing or leaving ───────────────────► cache, in a free block
//	 ├─ write, in no block ──────────────────────────► cache, in a free block; if there is
//	 │                                                 none, or for a cleaner, origin
//	 └─ filling ─────────────────────────────────────► waits for the first write's end
//
// A write that finds its sector in a block that it cannot use, and no free one, waits: if
// it went to the origin, what is copied there would overwrite it. Discards wait for
// blocks of theirs that are being copied, for the same reason.
//
// # Commit
//
// For each flush, after autocommit_time, and when autocommit_blocks blocks are new:
//
//	1 the sequence count of new entries goes up by one     a power cut leaves
//	2 writes to the cache that began before have ended     the entries of the last commit
//	3 the new entries are written, the cache is flushed    the same: they do not count yet
//	4 the superblock with the new count is written, FUA    one or the other
//	5 flushes and FUA writes are answered                  the new entries
//
// If blocks of earlier commits were overwritten and none is new, steps 2 and 5 with a
// flush of the cache are enough.
//
// # Writing back
//
// Blocks of earlier commits are copied, the oldest first, when more than high_watermark
// percent are in use and until low_watermark are, when they are older than max_age, for
// the message flush, or by a cleaner. The owner
//
//	1 marks them, so that they are not written any more, and waits for writes
//	2 copies them                                            a power cut leaves their entries
//	3 flushes the origin                                     the same
//	4 has reads go to the origin, and waits for reads of the cache
//	5 clears their entries, and flushes the cache            each with or without its entry
//	6 gives them free, and lets writes of their sectors pass by the cache
//
// so that the origin is never behind an entry that is gone, and no block holds something
// new while its old entry is on disk. A newer block of the same sector is copied after
// that.
//
// # Failures
//
// If the metadata cannot be written, or blocks cannot be copied, all later writes and
// flushes fail; reads go on. Lack of space is no failure: flushes, and writes that wait for
// a block, end with [blk.NoSpace], and all is tried again. A block whose first write has
// failed is dropped: what was there before is read.
//
// # Lock order
//
// The locks of env.Wait, then writecache.mu, then those of env.Queue. The owner is one
// queue, whose works do all that is above but Map; no lock is held across I/O.
package writecache

import "udm/dm"

const throttleParam = "dm_writecache.dm_writecache_throttle"

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{
		Name: "writecache", Version: [3]uint32{1, 6, 0},
		New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc,
		Params: []*dm.Param{dm.NewParam(throttleParam, 100, "percent of the time in which blocks may be written back from writecaches")},
	}
}

const doc = `writecache: a fast device that takes the writes of a slow one

Table:
  writecache s ORIGIN CACHE BLOCK N [OPTION...]
    s         the mode; p, for persistent memory, is refused
    ORIGIN    the slow device; it must be as long as the target at least
    CACHE     the fast device; zero its first 4 KiB to make a new cache
    BLOCK     bytes in a block, 512 to 4096, a power of two
    N         number of the words that follow, up to 18:
      start_sector SECTOR    where on CACHE the cache begins (0)
      high_watermark PERCENT write back when so many blocks are in use (50)
      low_watermark PERCENT  until so many are (45)
      writeback_jobs BLOCKS  write back so many at a time; 0: any number (0)
      autocommit_blocks N    commit when so many blocks are new (65536)
      autocommit_time MS     commit so long after a write (1000)
      max_age MS             write back what is so old
      cleaner                write everything back and take nothing in
      metadata_only          take nothing in: no bio here is known as metadata
      pause_writeback MS     write back only when no write has gone to the origin
                             for so long, unless it is asked for (3000)

Messages (dmsetup message NAME 0 ...):
  flush             write back what is in the cache, and wait for that
  flush_on_suspend  do so at the next suspend
  cleaner           write everything back and take nothing in
  clear_stats       set the numbers from READS on to 0

Status (dmsetup status):
  ERROR BLOCKS FREE WRITEBACK READS HITS WRITES UNCOMMITTED COMMITTED AROUND
  ALLOCATED BLOCKED FLUSHES DISCARDS
    ERROR        1 if a disk has failed, so that writes and flushes fail; else 0
    WRITEBACK    blocks that are being written back
    READS HITS   blocks that were read, and those found in the cache
    WRITES       blocks that were written; of those, the number that found their
                 block UNCOMMITTED or COMMITTED in the cache, went AROUND it, or
                 were ALLOCATED
    BLOCKED      writes that waited for a free block
    FLUSHES      of the device

Example: 100 GiB on a slow disk behind a fast one
  0 209715200 writecache s /srv/slow.img /srv/fast.img 4096 0
`
