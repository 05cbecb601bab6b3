// Package thin implements the targets "thin-pool" and "thin" (drivers/md/dm-thin.c):
// volumes that take space from a shared pool when they are first written, and
// snapshots of them in constant time. The Doc of each type is its manual.
//
// # Parts
//
//	poolTarget   a thin-pool line of a table: a linear map to the data device
//	pool         shared by all tables of one pool device; owns the metadata
//	thin         a thin line of a table
//	volume       shared by all thin lines with one id: the mapping cache
//	mapping      a block that is being provisioned, copied or discarded
//
// A data block that is being prepared, or that the data device is still discarding,
// is reserved in memory only. So nothing leaks, whichever transactions are committed
// or aborted meanwhile.
//
// # The owner
//
// A pool has one queue. Its works run one at a time and make all changes to the pool;
// only they call the metadata library, except for TryFind. [pool.pass] is the work
// that serves bios; control operations run as works too ([pool.call]). A bio whose
// block is in the cache never waits for the owner.
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
// The kernel puts every bio into two cells, so that discards and breaks of sharing
// cannot run while it is looked up and issued. Here most bios take no cell. A cache
// entry is a permit: "virtual block v may be read at data block d, and written unless
// the entry says shared, by a bio that is in the deferred set all_io (and in
// shared_read if the block is shared)". The protocol:
//
//	user    1 load the table and the entry    owner   1 lock v with a cell
//	        2 enter the deferred sets                 2 erase the entry
//	        3 load both again; if either              3 AddWork: wait for all that
//	          has changed, leave the sets               entered before
//	          and take the slow path                  4 change the mapping
//	        4 issue                                   5 release the cell
//	        5 leave the sets when the I/O ends
//
// All loads and stores are sequentially consistent. If the user's step 3 precedes the
// owner's step 2, then the user's step 2 precedes the owner's step 3, which waits for
// the user. Otherwise the user's step 3 sees that the entry is gone. An erased entry
// cannot come back while the owner is at work, because entries are stored only under
// the cell of v. An entry that was erased and stored again between the user's steps 1
// and 3 is valid: only step 3 decides.
//
// An operation that changes many mappings at once without cells (a snapshot of the
// volume, an abort to the last commit, mode fail) replaces the whole table after the
// change. Whoever fills the cache loads the table before looking up the mapping, so a
// mapping that was read before the change is stored in the abandoned table.
//
// Deferred-set counts are per processor, and a hit only reads the table: mapped I/O
// on different processors writes no common cache line.
//
// # Cells
//
// A cell locks a range of a volume's blocks from the look-up of their mapping until
// the resulting operation is complete: a provision, a break of sharing, a discard. It
// holds back bios to these blocks only. (To break sharing, the kernel releases this
// cell early and locks the data block with a second one, whose key names the same
// volume. Holding the first one is simpler and keeps a discard from overtaking the
// copy.)
//
// The bios in a cell are issued when it is released. Each is counted in all_io within
// the critical section that removes the cell, so that no discard can slip in between
// ([thin.issueCell]).
//
// # Commit
//
// The metadata library commits in this order: flush the data, write and flush the
// metadata, write the superblock. A flush or FUA bio of a volume that has uncommitted
// changes waits for the commit that starts at the end of the pass that finds it; one
// commit serves all of them. Without such bios a commit starts one second after the
// last one. It is written beside the owner, whose passes go on with the next
// transaction; bios that need a commit meanwhile share the next one (commit.go).
// While a volume has no uncommitted changes (volume.changed), its flushes and its
// FUA writes to cached blocks go straight to the pool device.
//
// # A pass
//
// A pass first inserts all prepared mappings and issues the bios that waited for
// them. Then come a portion of the discards whose blocks are idle, the deferred cells
// and bios, a portion of the mappings of deleted volumes, and the commit. A metadata
// operation starts only if the metadata blocks that it may need are free
// ([pool.modify]): the pass commits in between to free some, and an operation that
// may still need too many runs in a transaction of its own, so that a full pool turns
// read-only without losing anything. When a metadata operation fails for another
// reason, the transaction is aborted. Mappings that were inserted in it but not
// released yet are lost, and their bios fail ([mapping.release] compares
// pool.transaction.aborts).
//
// Readers of the metadata see at once that a block has been unmapped or moved. They
// may see a new mapping of a previously unmapped block late
// ([thinmeta.Thin.TryFind]); until then they ask the owner. A pass that serves such a
// read publishes all mappings, and so does a commit.
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
// A waiting bio is linked into a list through itself and takes no memory. Each block
// that is worked on takes a cell or a mapping. kcopyd bounds the memory for copies.
// (The kernel makes submitters sleep when a pass takes more than a second. Here bios
// wait in lists and nobody sleeps.)
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
//	pool.inbox.mu, pool.filler.mu, thin.mu, env's locks   leaves
//
// The owner never takes a lock that is held around a wait for it.
package thin
