// Package thin is the targets "thin-pool" and "thin" (drivers/md/dm-thin.c):
// volumes that take space from a shared pool when they are first written, and
// snapshots of them in constant time. The manuals are the types' Doc.
//
// # Parts
//
//	poolTarget   a thin-pool line of a table: a linear map to the data device
//	pool         what the tables of one pool device share; has the metadata
//	thin         a thin line of a table
//	volume       what the thin lines with one id share: the mapping cache
//	mapping      a block that is being provisioned, copied or discarded
//
// A data block that is being prepared, or that the data device still discards, is
// taken in memory only: nothing leaks, whatever is committed or lost meanwhile.
//
// # The owner
//
// A pool has one queue. Its works, one at a time, do everything that changes the
// pool: they alone call the metadata library, but for TryFind. The work that
// serves bios is pool.pass; control operations are works too ([pool.call]).
// Nothing on the way of a mapped bio waits for the owner.
//
//	Map ─ cache hit ─────────────────────────────────────────► remapped
//	 │ miss
//	 ├─ the block's cell is held: the bio waits in it
//	 ├─ TryFind: mapped, and not both shared and a write ────► remapped, cache filled
//	 ├─ TryFind: unmapped, and a read ───────────────────────► origin or zeroes
//	 └─ else: deferred ─► pass ─► provisioned, copied, read, queued, refused, …
//
// # The mapping cache
//
// The kernel detains every bio in two cells to exclude discards and breaks of
// sharing while it looks up and issues. Here most bios take no cell. An entry of
// a volume's cache is a permit: "block v may be read, and unless the entry says
// shared be written, at data block d, as long as whoever does so is in the
// deferred set all_io (and for a shared block in shared_read)". The protocol:
//
//	user    1 load the table and the entry    owner   1 lock v by a cell
//	        2 enter the deferred sets                 2 erase the entry
//	        3 load both again; if either              3 AddWork: wait for all who
//	          differs, leave and go the slow way        entered before
//	        4 issue                                   4 change the mapping
//	        5 leave at the end of the I/O             5 release the cell
//
// All loads and stores are sequentially consistent. If a user's step 3 comes
// before the owner's step 2, its step 2 comes before the owner's step 3, which
// waits for it. Otherwise step 3 sees that the entry is gone. An entry that is
// gone cannot come back while the owner is at work, because every store of an
// entry is made under the cell of v. A value that was erased and came back
// between steps 1 and 3 is right as well: step 3 alone decides.
//
// What changes many mappings at once and without cells (a snapshot of the volume,
// an abort to the last commit, FAIL) replaces the whole table after the change.
// Who fills loads the table before the look-up that it fills from, so what it
// read before the change goes to a table that nobody looks at any more.
//
// Deferred-set counts are per processor and tables are only read on a hit:
// mapped I/O of different processors writes no common cache line.
//
// # Cells
//
// A cell locks blocks of a volume from the look-up of their mapping to the end of
// what is done because of it: a provision, a break of sharing, a discard. It
// holds back bios to these blocks; everything else passes. (The kernel releases
// this cell early when it breaks sharing, and locks the data block in its place
// by a second one, whose key names the same volume. Holding the first one is
// simpler and keeps a discard from overtaking the copy.)
//
// Bios in a cell are issued straight from its release, each counted in all_io
// within the critical section that erases the cell, so that no discard can come
// between ([thin.issueCell]).
//
// # Commit
//
// The metadata library's order: data flushed, metadata written and flushed,
// superblock. A flush or FUA bio of a volume that was changed in this
// transaction waits for a commit at the end of the pass that finds it; there is
// one commit for all of them. Otherwise one second after the last commit. While
// nothing of a volume is uncommitted (volume.changed), its flushes and its FUA
// writes to cached blocks go straight to the pool device.
//
// # A pass
//
// What is prepared is inserted first, all of it, then the bios that waited for it
// are issued. Then come discards whose blocks are idle, a portion of them, deferred
// cells and bios, a portion of what deleted volumes have left, and the commit. What a metadata operation may need is there before it starts
// ([pool.modify]): a pass commits in between, and an operation that may be too much
// is a transaction of its own, so that a pool that is full turns read-only without
// losing anything. When a metadata operation fails for another reason, the transaction
// is thrown away; mappings that were inserted in it but not released yet are
// lost, and their bios fail ([mapping.release] looks at pool.transaction.aborts).
//
// Readers of the metadata see at once what they must not miss: that a block is
// mapped to another place than before, or to none. Of a block that was not mapped
// they may hear for a while that the owner knows ([thinmeta.Thin.TryFind]); a pass
// that serves a read for that reason shows them everything, and so does a commit.
//
// # Changed blocks
//
// A write to a block that a snapshot shares goes to another data
// block, and a data block that is shared is never written. So two volumes of a pool
// have the same content wherever both have the same data block, and in no other
// place can it be relied on: a block that was rewritten with what it held counts as
// changed, as does one that was discarded.
//
// The owner of the pool looks at both volumes in portions, in the metadata as they
// are at that moment, committed or not: a write is in them before it ends, and so is
// a discard. The mappings of volumes that nobody writes to are the same in each
// portion, whatever happens to others in the pool; so what a snapshot has changed
// since another one is exact. Of a volume that is written to, what each portion says
// was true at a moment between call and return: a write that ended before the call
// is told of, one under way perhaps. A root that was held meanwhile would say no
// more that is of use: what is read afterwards is read from the volume as it is
// then. To read what was changed up to one moment, take a snapshot, and ask for its
// changes.
//
// # Bounds
//
// A bio that waits is in a list through itself; beside it there is a cell or a
// mapping for each block that is worked on. Memory for copies is bounded by
// kcopyd. (The kernel makes submitters sleep while a pass takes more than a
// second; here nobody sleeps, bios wait in the lists.)
//
// # Modes
//
// See mode.go, where [pool.setMode] makes every transition, and shortage.go for disks
// below that are full.
//
// # Lock order
//
//	pools.mu         (env.Mutex; held around waits for the owner)
//	└─ prison's locks
//	   └─ deferred sets' locks
//	pool.inbox.mu, thin.mu, env's locks   leaves
//
// The owner takes none that is held around a wait for it.
package thin
