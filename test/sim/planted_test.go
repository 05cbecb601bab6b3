package sim

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"udm/test/watchdog"
)

var (
	planted = flag.Bool("planted", false, "build the stack with each planted defect and see that it is found")
	every   = flag.Uint64("every", 1, "with -planted: plant one of so many defects; -first says with which one to begin")
)

// edit is a change of a source file of the module.
type edit struct{ file, old, new string }

// defects are typical mistakes of storage software, each with what finds it.
var defects = []struct {
	name   string
	finder string // a kind of histories, or a package and a test of it
	edits  []edit
}{
	{"no flush of the data before the commit", "thins", []edit{{"pdata/super.go",
		"if c.preCommit != nil {", "if false {"}}},
	{"no flush of the blocks before the superblock", "thins", []edit{{"pdata/bm_io.go",
		"if err := blk.FlushDevice(bm.env, bm.dev); err != nil {\n\t\treturn err\n\t}\n\tif err := bm.writeOne", "if err := bm.writeOne"}}},
	{"no flush of the chunk before its exception", "snapshots", []edit{{"targets/snapshot/durable.go",
		"blk.Preflush|blk.FUA", "blk.FUA"}}},
	{"a mapping is made before its block is copied", "thins", []edit{{"targets/thin/mapping.go",
		"t.pool.copier.Copy(&m.copy)", "m.copy.Done = func(*kcopyd.Job) {}\nt.pool.copier.Copy(&m.copy)\nm.done()"}}},
	{"an exception is recorded before its chunk is copied", "snapshots", []edit{{"targets/snapshot/pending.go",
		"\ts.kc.Copy(j)\n", `	c := &kcopyd.Job{From: j.From, Sectors: j.Sectors, Done: func(*kcopyd.Job) {}}
	c.SetTo(kcopyd.Place{Dev: s.cowDev, Sector: pe.new << b.shift})
	s.kc.Copy(c)
	s.kc.Prepare(j)
	s.kc.Fire(j)
`}}},
	{"a cell is released while its block is copied", "thins", []edit{
		{"targets/internal/prison/prison.go", "func (p *Prison) erase(", `func (p *Prison) Early(c *Cell) {
	s := p.shard(c.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.narrow, c.Key)
}

func (p *Prison) erase(`},
		{"targets/thin/mapping.go", "\tm.left.Store(3) ", "\tt.pool.prison.Early(m.cell)\n\tm.left.Store(3) "}}},
	{"a block with holes is mapped at once", "targets/thin TestHolesTakeTheirSpaceBeforeTheyAreMapped", []edit{{"targets/thin/fill.go",
		"if !e.Data {", "if false {"}}},
	{"the owner asks for the holes of new blocks", "targets/thin TestOwnerDoesNotWaitForHoles", []edit{{"targets/thin/fill.go",
		"f.queue.Queue(f.work)", "m.t.pool.fillAll()"}}},
	{"old mappings count as later ones", "targets/thin/thinrescue TestLostSuperblock", []edit{{"targets/thin/thinrescue/order.go",
		"if time < latest {", "if time > latest {"}}},
	{"a flush without a cache does not wait for a barrier", "blk/checkdev TestFlushBehindABarrier", []edit{{"blk/checkdev/checkdev.go",
		" && d.barriers.Load() == 0:", ":"}}},
	{"a bio that is pushed back is lost", "thins", []edit{{"dm/requeue.go",
		"\td.waitAgainLocked(b)\n\treturn true", "\treturn true"}}},
	{"targets of an answer are chained like those of a request", "run/dmioctl TestBytes", []edit{{"run/dmioctl/data.go",
		"if fromItself {\n\t\t\tfrom", "if true {\n\t\t\tfrom"}}},
	{"every word that looks like a number is translated", "run TestRenumbered", []edit{{"run/renumber_linux.go",
		"&& ok(ctl.Number(n))", "&& (true || ok(ctl.Number(n)))"}}},
	{"the type of an ioctl is not looked at", "run/notify TestFilter", []edit{{"run/notify/filter_linux.go",
		"ioctlTypeMask = 0xff00", "ioctlTypeMask = 0xf000"}}},
	{"a group's header is written before the text is durable", "lvm/edit TestPowerCuts", []edit{{"lvm/commit.go",
		"\t\terr = f.Sync()\n", "\t\terr = nil\n"}}},
	{"a group's new text is written over the committed one", "lvm/edit TestPowerCuts", []edit{{"lvm/copywriter.go",
		"if s := c.committed; s.fits", "if s := c.committed; false && s.fits"}}},
	{"a pool's messages do not raise its transaction", "lvm/edit TestPowerCuts", []edit{{"lvm/edit/thin.go",
		`number(s.Value("transaction_id"))+1)`, `number(s.Value("transaction_id")))`}}},
	{"a record is written before its chunk is there", "targets/snapshot TestRecordsAreInOrderOfPlaces", []edit{{"targets/snapshot/recordstage.go",
		"\t\tcase !r.hasData():\n\t\t\treturn nil\n", ""}}},
	{"a record that comes at the end of a turn is forgotten", "targets/snapshot TestRecordThatComesAtTheEndOfATurn", []edit{{"targets/snapshot/recordturn.go",
		"upTo|t&states|wanted", "upTo|t&states"}}},
	{"an owner leaves a record that is over", "targets/snapshot TestRecordIsOverBeforeItsOwnerLeaves", []edit{{"targets/snapshot/recordturn.go",
		"if r.state.CompareAndSwap(copied, left) {", "if r.state.Swap(left) != 99 {"}}},
	{"areas are written while devices have data for them", "targets/snapshot TestRecordWaitsForTheOneInFront", []edit{{"targets/snapshot/recordstage.go",
		"\tcase p.away.Load() > 0:\n\t\treturn p.end(false)\n", ""}}},
	{"a bio is looked at before it is counted as held back", "targets/snapshot TestHeldBackBiosAreCountedFirst", []edit{{"targets/snapshot/throttle.go",
		"\tt.count.Add(1)\n\ts.at(pointCounted)\n", "\ts.at(pointCounted)\n\tt.count.Add(1)\n"}}},
	{"the first read to end lets go who waits for another", "targets/snapshot TestOriginWriteWaitsForTheLastRead", []edit{{"targets/snapshot/tracked.go",
		"io.has(w.chunk) && !sh.hasLocked(w.chunk)", "io.has(w.chunk)"}}},
	{"a dropped snapshot gets an exception", "targets/snapshot TestCopyOutlivesItsSnapshot", []edit{{"targets/snapshot/complete.go",
		"if !ok || !s.has(flagValid) {\n\t\ts.chunkLost", "if !ok {\n\t\ts.chunkLost"}}},
	{"nobody waits for who is making an exception", "targets/snapshot TestLeavingWaitsForWhoMakesAnException", []edit{{"targets/snapshot/registry.go",
		"\ts.pending.barrier()\n", ""}}},
	{"a store gives the last place of a full area again", "targets/snapshot TestOpenedWhenAnAreaIsFull", []edit{{"targets/snapshot/format.go",
		"\tif g.isArea(c) {\n\t\tc++\n\t}\n", ""}}},
	{"areas are zeroed as holes", "targets/snapshot TestAreasTakeTheirSpace", []edit{{"targets/snapshot/persistent.go",
		"\tp.zero.NoUnmap = true\n", ""}}},
	{"a block is mapped though it found no space", "thins-full", []edit{{"targets/thin/mapping.go",
		"\tcase m.full.Load():\n\t\tp.dataFull()\n\t\terr = blk.NoSpace\n", ""}}},
	{"a block is mapped before its space is taken", "targets/thin TestBlocksTakeTheirSpaceBeforeTheyAreMapped", []edit{{"targets/thin/mapping.go",
		"m.copied, true\n", "m.copied, false\n"}}},
	{"a commit that found no space is taken for one that was made", "thins-full", []edit{{"pdata/super.go",
		"if s.waits = err == blk.NoSpace; s.waits {\n\t\treturn err\n\t}", "if err == blk.NoSpace {\n\t\terr = nil\n\t}"}}},
	{"a failed exchange forgets devices whose turn has not come", "targets/snapshot TestExchangeTakesExceptionsBackToTheLast", []edit{{"dm/exchange.go",
		"range x.cs[:failed+1] {\n\t\tif c.Specs != nil {", "range x.cs[:failed+1] {\n\t\tif i == failed && c.Specs != nil {"}}},
	{"the next area is zeroed after this one was written", "targets/snapshot TestCrashAfterZeroing", []edit{
		{"targets/snapshot/recordstage.go", "\tcase p.committed == p.perArea:\n\t\tp.stage = zeroing\n", "\tcase p.committed == p.perArea:\n\t\tp.stage = writing\n"},
		{"targets/snapshot/recordstage.go", "\tp.stage = reporting\n\tif !p.valid.Load()", "\tif p.stage = reporting; p.committed == p.perArea {\n\t\tp.stage = zeroing\n\t}\n\tif !p.valid.Load()"},
		{"targets/snapshot/recordstage.go", "\tp.stage, p.tried = writing, zeroing\n\tchunk", "\tp.stage, p.tried = reporting, zeroing\n\tchunk"}}},
	{"a reference count is not raised from 1 to 2", "thins", []edit{{"pdata/sm_mutate.go",
		"\tnow = old + uint32(delta)\n", "\tnow = old + uint32(delta)\n\tif delta == 1 && old == 1 {\n\t\tnow = old\n\t}\n"}}},
	{"a checksum is not looked at", "thins-damaged", []edit{{"pdata/kind.go",
		"k.sum(p); got != want {", "k.sum(p); got != want && false {"}}},
	{"a barrier does not wait for what is in flight", "plain", []edit{{"dm/worker.go",
		"if br.sent || !d.drainedLocked() {", "if br.sent {"}}},
	{"a barrier overtakes what waits for a limit", "plain-limited", []edit{
		{"dm/throttle.go", "if m.barrier || !m.behind.Empty() || isBarrier(b) && m.waiting > 0 {", "if !m.behind.Empty() {"},
		{"dm/throttle.go", "for !m.barrier && !m.behind.Empty() && !(isBarrier(m.behind.First()) && m.waiting > 0) {", "for !m.behind.Empty() {"}}},
	{"a saved file is renamed before it is flushed", "daemon", []edit{{"env/hostfs/hostfs.go",
		"errors.Join(err, file.Sync(), file.Close())", "errors.Join(err, file.Close())"}}},
	{"a command is answered before the directory is flushed", "daemon", []edit{{"env/hostfs/hostfs.go",
		"return f.SyncDir(filepath.Dir(paths[0]))", "return nil"}}},
	{"saved state is believed before it is flushed", "test/sim TestWhatAStartShowsStays", []edit{{"ctl/server/state/store.go",
		"if err := s.fs.SyncDir(s.dir); err != nil {", "if err := error(nil); err != nil {"}}},
	{"a name is saved while another file has it", "ctl/server/service TestNameOfADeviceThatWentByItself", []edit{{"ctl/server/state/save.go",
		"taken && minor != r.Minor {", "taken && minor != r.Minor && false {"}}},
	{"the directory of the saved state is not on the disk", "daemon", []edit{{"env/hostfs/hostfs.go",
		"\treturn f.SyncDir(above)\n", "\treturn nil\n"}}},
	{"a deferred work does not wait for the newest epoch", "thins", []edit{{"targets/internal/deferredset/deferredset.go",
		"if s.idleUpToLocked(e) {", "if e > 0 && s.idleUpToLocked(e-1) {"}}},
	{"the details of a metadata snapshot have no reference", "thins", []edit{{"pdata/super.go",
		"for _, root := range roots {", "for _, root := range roots[:1] {"}}},
	{"an exception is published before its area is written", "snapshots", []edit{{"targets/snapshot/recordstage.go",
		"p.gate.Store(2)\n\tp.writes.Get", "p.gate.Store(1)\n\tp.writes.Get"}}},
	{"a mirror is written before its log says that the region is dirty", "targets/mirror TestPowerCuts", []edit{{"targets/mirror/worker.go",
		"err := m.log.flush()", "err := error(nil)"}}},
	{"regions of a mirror are clean in the log before their legs are flushed", "targets/mirror TestPowerCuts", []edit{{"targets/mirror/log.go",
		"if l.cleaned {", "if l.cleaned && false {"}}},
	{"a region of a mirror is written while it is copied", "mirrors-hard", []edit{{"targets/mirror/region.go",
		"r != nil && p.first <= r.number", "r != nil && false"}}},
	{"a write that failed on a leg of a mirror is acknowledged", "targets/mirror TestHeldWrites", []edit{{"targets/mirror/worker.go",
		"case m.line.HandleErrors && !m.line.KeepLog:\n\t\tm.hold(c)", "case false:\n\t\tm.hold(c)"}}},
	{"a mirror counts as in sync after its log could not be read", "targets/mirror TestPrimaryFailsAfterLogCannotBeRead", []edit{{"targets/mirror/worker.go",
		"\t\tm.lookWhetherOutOfSync()\n", ""}}},
	{"a mirror takes what its log says for written at once", "targets/mirror TestLogCannotSayWhatIsOutOfSync", []edit{{"targets/mirror/log.go",
		"l.dirtied, l.cleaned, l.written = true, false, false", "l.dirtied, l.cleaned, l.written = true, false, true"}}},
	{"a mirror counts as in sync although the log is to be told of a region that is not", "targets/mirror TestDiscardFailsWhileTheLastRegionComesIntoSync", []edit{{"targets/mirror/recovery.go",
		"len(rs.lost) == 0 &&", ""}}},
	{"nobody waits for reads of a snapshot at the origin", "snapshots-hard", []edit{{"targets/snapshot/complete.go",
		"if s.tracked.drain(pe.old, pe.drained) {", "if true {"}}},
	{"a mapped block has no reference", "thins", []edit{{"targets/thin/thinmeta/mapping.go",
		"m.data.Inc(data, data+1)", "m.data.Inc(data, data)"}}},
	{"a discarded block stays in the mapping cache", "thins-hard", []edit{{"targets/thin/discard.go",
		"t.vol.cache.erase(m.begin, m.end)", ""}}},
	{"a block that others use is discarded on the data device", "thins-hard", []edit{{"targets/thin/discard.go",
		"if !r.Shared {", "if true {"}}},
	{"a deleted volume loses a reference that others have", "thins", []edit{{"targets/thin/thinmeta/delete.go",
		"\tif err := m.tm.Inc(root); err != nil {\n\t\treturn err\n\t}\n", ""}}},
	{"a deletion is forgotten by a restart", "targets/thin TestDeleteGoesOnAfterAPowerCut", []edit{{"targets/thin/poolresume.go",
		"\tp.deleting = true // a deletion may have been interrupted\n", ""}}},
	{"a deletion drops a leaf that others have", "targets/thin/thinmeta TestDeleteInPortions", []edit{{"pdata/btree_prune.go",
		"\t\tif shared {\n\t\t\tp.done.Next", "\t\tif shared && false {\n\t\t\tp.done.Next"}}},
	{"a deletion leaves nodes that are too empty", "targets/thin/thinmeta TestDeleteInPortions", []edit{{"pdata/btree_prune.go",
		"n.count() >= n.max()/3 ||", "n.count() >= 0 ||"}}},
	{"a suspended pool goes on deleting", "targets/thin TestDeleteOfASuspendedPool", []edit{{"targets/thin/delete.go",
		"!p.deleting || p.isSuspended()", "!p.deleting"}}},
	{"counts of one leaf change in one bitmap only", "targets/thin/thinmeta TestDeleteInPortions", []edit{{"pdata/sm_mutate.go",
		"\tfor len(ss) > 0 {\n\t\tvar n int64", "\tfor first := true; first; first = false {\n\t\tvar n int64"}}},
	{"a discard goes down before the commit", "targets/thin TestDiscardPassesDownWhatNobodyUses", []edit{{"targets/thin/discard.go",
		"failed := sharing && p.commit() != nil", "failed := sharing && false"}}},
	{"half of a piece that is pushed back is sent again", "thins-hard", []edit{{"dm/requeue.go",
		"b.Seek(p.pos, p.sectors)", "b.Seek(p.pos, p.sectors-p.sectors/2)"}}},
	{"the in-flight count drops before what was pushed back is decided about", "dm TestPushedBackIsCountedUntilDecided", []edit{{"dm/requeue.go",
		"\tif !d.pushBack(b) {\n\t\tb.Complete(blk.IOErr)\n\t}\n\td.leave(sh)\n", "\td.leave(sh)\n\tif !d.pushBack(b) {\n\t\tb.Complete(blk.IOErr)\n\t}\n"}}},
	{"a submitter does not look at the table again", "dm TestSuspendBetweenLookAndCount", []edit{{"dm/inflight.go",
		"\tif d.fast.Load() == t {", "\tif true {"}}},
	{"a submitter looks at the table before it counts itself", "dm TestSuspendBetweenLookAndCount", []edit{{"dm/inflight.go",
		"\tp.count()\n\tif d.fast.Load() == t {\n\t\treturn true\n\t}\n\td.leave(p.shard)\n\treturn false\n",
		"\tif d.fast.Load() != t {\n\t\treturn false\n\t}\n\tp.count()\n\treturn true\n"}}},
	{"a suspend takes the table away after its look at the counts", "dm TestSubmitWhileASuspendBegins", []edit{
		{"dm/suspend.go", "\td.state.blocked = true\n\td.fast.Store(nil)\n", "\td.state.blocked = true\n"},
		{"dm/suspend.go", "\td.drained.Until(func() bool { return d.idleNow() || ctx.Err() != nil })\n",
			"\td.drained.Until(func() bool { return d.idleNow() || ctx.Err() != nil })\n\td.fast.Store(nil)\n"}}},
	{"a target sends a bio beyond the end of its device", "dm TestTargetThatBreaksTheContract", []edit{{"blk/checkdev/between.go",
		"if b.Op != blk.Flush && l.Size > 0 {", "if false {"}}},
	{"what a sealed transaction frees is used again at once", "targets/thin/thinmeta TestCrashBesideTheNextTransaction", []edit{{"pdata/sm_states.go",
		"|| s.disk == nil {", "|| true {"}}},
	{"a page that is being written leaves the cache", "targets/thin/thinmeta TestCrashBesideTheNextTransaction", []edit{{"pdata/bm_cache.go",
		"p.dirty || p.going ||", "p.dirty ||"}}},
	{"the next transaction changes what is being written", "targets/thin/thinmeta TestCrashBesideTheNextTransaction", []edit{{"pdata/tm.go",
		"\ttm.wipeShadows()\n\treturn tm.bm.takeDirty(), nil\n", "\treturn tm.bm.takeDirty(), nil\n"}}},
	{"a volume that changed during a commit counts as durable", "targets/thin TestProvisionsWhileACommitIsWritten", []edit{{"targets/thin/commit.go",
		"\t\tv.changed.Store(again)\n", "\t\tv.changed.Store(false)\n"}}},
	{"a volume whose changes are being written counts as durable", "targets/thin TestFlushOfWhatIsBeingCommitted", []edit{{"targets/thin/thinmeta/thin.go",
		"t.changed || t.sealed || t.aborted }", "t.changed || t.aborted }"}}},
	{"bios of a cell are counted when they are issued", "targets/thin TestBiosOfACellAreCountedWhenItIsErased", []edit{
		{"targets/thin/worker.go", "\t\t\tt.enter(hookOf(c), shared)\n\t\t\tissued.Push(c)", "\t\t\tissued.Push(c)"},
		{"targets/thin/worker.go", "\t\tt.remapAndIssue(c, data)\n", "\t\tt.enter(hookOf(c), shared)\n\t\tt.remapAndIssue(c, data)\n"}}},
	{"the holder of a cell is not in flight", "targets/thin TestHolderIsInFlight", []edit{{"targets/thin/mapping.go",
		"\t\tt.enter(hookOf(c), false)\n\t\tt.remapAndIssue(c, m.data)", "\t\tt.remapAndIssue(c, m.data)"}}},
	{"the prison's lock is dropped between visit and erase", "targets/thin TestCellIsHeldBetweenVisitAndErase", []edit{
		{"targets/internal/prison/prison.go", "import (", "import (\n\t\"time\""},
		{"targets/internal/prison/prison.go", "\t\tdelete(s.narrow, c.Key)", "\t\ts.mu.Unlock()\n\t\ttime.Sleep(time.Second)\n\t\ts.mu.Lock()\n\t\tdelete(s.narrow, c.Key)"}}},
	{"a hit in the mapping cache is not looked at again", "targets/thin TestHitIsLookedAtAgain", []edit{{"targets/thin/map.go",
		"t.vol.cache.table.Load() != tab || word.Load() != w || ", ""}}},
	{"the intent of an operation is not on the disk before its first step", "volumes", []edit{{"volume/journal.go",
		"return hostfs.Commit(j.fs, j.path(op, begun))", "return j.fs.Rename(j.path(op, begun)+\".new\", j.path(op, begun))"}}},
	{"a restart forgets operations", "volumes", []edit{{"volume/manager.go",
		"\tfor _, op := range ops {\n\t\top.m,", "\tfor _, op := range ops[:0] {\n\t\top.m,"}}},
	{"an image is written to that others stand on", "volume TestRefusals", []edit{{"volume/merge.go",
		"if u != o.name {\n\t\t\treturn refuse(syscall.EBUSY, \"%s depends on %s, too, and would", "if false {\n\t\t\treturn refuse(syscall.EBUSY, \"%s depends on %s, too, and would"}}},
	{"the number of a removed volume is given again", "volume TestTogether", []edit{{"volume/pool.go",
		"taken := m.snapshotted()", "taken := make(map[uint32]bool)"}}},
	{"what stands on a device stops after it", "dm TestExchangeStopsUsersFirst", []edit{{"dm/exchange.go",
		"if stops[i] || users[c.Device.Number()] > 0 {", "if stops[i] || users[c.Device.Number()] > len(cs) {"}}},
	{"blocks in the cache are not flushed before the metadata say where they are", "caches", []edit{{"targets/cache/worker.go",
		"if c.flushFast {", "if false {"}}},
	{"blocks that were written back are not flushed before they leave the cache", "caches", []edit{{"targets/cache/worker.go",
		"if c.flushOrig {", "if false {"}}},
	{"the clean-shutdown flag of a cache stays while it is used", "caches", []edit{{"targets/cache/cachemeta/metadata.go",
		"m.super.Flags &^= FlagClean; return nil", "return nil"}}},
	{"a written block of a cache is not dirty", "caches", []edit{{"targets/cache/map.go",
		"if write && !both {", "if false {"}}},
	{"a block of a cache is used again before its demotion is committed", "caches", []edit{{"targets/cache/migrate.go",
		"\tc.committing = append(c.committing, m)", "\tc.finish(m, true)"}}},
	{"a migration does not wait for writes in flight", "caches-hard", []edit{{"targets/cache/migrate.go",
		"\tc.quiesce(m, c.writes, func() { c.copy(m) })", "\tc.then(m, func() { c.copy(m) })"}}},
	{"a block of a cache stays when the table ends before it", "targets/cache TestOriginShrinks", []edit{{"targets/cache/resume.go",
		"err = c.removeAll(beyond)", "_ = beyond"}}},
	{"a suspend of a cache waits for a commit that finds no space", "targets/cache TestFullEach", []edit{{"targets/cache/resume.go",
		"return c.migrating == c.unsaved", "return c.migrating == 0"}}},
	{"regions are not flushed before their bits are written", "clones", []edit{{"targets/clone/clone.go",
		"c.md.SetPreCommit(func() error { return blk.FlushDevice(e, c.dest) })", "c.md.SetPreCommit(func() error { return nil })"}}},
	{"a region is hydrated before it is copied", "clones", []edit{{"targets/clone/hydration.go",
		"\tc.copier.Copy(&h.job)\n", "\tc.set(h.run)\n\tc.copier.Copy(&h.job)\n"}}},
	{"a flush does not wait for the bits of its regions", "clones", []edit{{"targets/clone/clone.go",
		"if !c.uncommitted.Load() {\n\t\treturn dm.Remapped", "if true {\n\t\treturn dm.Remapped"}}},
	{"a write to a part of a region is not preceded by its copy", "clones", []edit{{"targets/clone/hydration.go",
		"case x.Sectors == 1<<c.shift:", "case x.Sectors > 0:"}}},
	{"a discard does not wait for a copy", "targets/clone TestDiscardAwaitsCopy", []edit{{"targets/clone/hydration.go",
		"case c.busy(run) != nil:", "case false:"}}},
	{"a suspend of a clone does not wait for copies", "targets/clone TestSuspendAwaitsCopies", []edit{{"targets/clone/resume.go",
		"\tc.wait.Until(func() bool { return c.hydrating.Load() == 0 })\n", ""}}},
	{"a failed copy hydrates its region", "clones-errors", []edit{{"targets/clone/hydration.go",
		"case j.Failed():\n\t\treturn blk.IOErr", "case j.Failed():\n\t\treturn blk.OK"}}},
	{"another table does not read the metadata again", "clones", []edit{{"targets/clone/resume.go",
		"if mode(c.mode.Load()) != readWrite || c.uncommitted.Load() {", "if true {"}}},
	{"a table forgets what the one before could not commit", "clones-full", []edit{{"targets/clone/resume.go",
		"\t\t\tc.takeOver()\n", ""}}},
	{"a clone's regions that were read count as durable", "targets/clone TestWhatWasReadIsDurable", []edit{{"targets/clone/resume.go",
		"\tif err := c.md.FlushRead(); err != nil {\n\t\treturn err\n\t}\n", ""}}},
	{"a store that was read counts as durable", "targets/snapshot TestWhatWasReadIsDurable", []edit{{"targets/snapshot/construct.go",
		"\tif st.unflushed() {\n\t\ts.set(flagUnflushed, 0)\n\t}\n", ""}}},
	{"a pool's mappings that were read count as durable", "targets/thin TestWhatWasReadIsDurable", []edit{{"targets/thin/pool.go",
		"\t\terr = p.md.FlushRead()\n", ""}}},
	{"marks that were read count as durable", "targets/era TestMarksOfDoubtfulSuperblocks", []edit{{"targets/era/erameta/era.go",
		"\tfresh = m.sb.Doubtful()\n", ""}}},
	{"marks are there before they are committed", "eras", []edit{{"targets/era/worker.go",
		"err := e.change(func() (bool, error) { return e.md.Mark(blocks) })",
		"err := e.change(func() (bool, error) { _, err := e.md.Mark(blocks); return false, err })"}}},
	{"an era keeps the marks of the one before", "eras", []edit{{"targets/era/worker.go",
		"\t\te.marks.Store(newMarks(e.blocks))\n\t\te.digesting = true\n\t\te.queue", "\t\te.digesting = true\n\t\te.queue"}}},
	{"marks stay though their commit found no space", "eras-full", []edit{{"targets/era/worker.go",
		"\tm := e.marks.Load()\n\tfor _, b", "\tfor _, b"}, {"targets/era/worker.go",
		"\terr := e.change(func() (bool, error) { return e.md.Mark(blocks) })\n", "\tm := e.marks.Load()\n\tfor _, b := range blocks {\n\t\tm.add(b)\n\t}\n\terr := e.change(func() (bool, error) { return e.md.Mark(blocks) })\n"}}},
	{"a superblock that was read counts as durable", "eras-errors", []edit{{"pdata/super.go",
		"\ts.bm.doubtful.Store(true)\n", ""}}},
	{"a digest forgets every other block", "eras", []edit{{"targets/era/erameta/era.go",
		"if !set {", "if !set || d.next%2 == 1 {"}}},
	{"only the first block of a write is marked", "eras", []edit{{"targets/era/era.go",
		"return uint32(c.Sector / e.block), uint32((c.Sector + max(c.Sectors, 1) - 1) / e.block)", "return uint32(c.Sector / e.block), uint32(c.Sector / e.block)"}}},
	{"an object is finished before all of it is hydrated", "volume TestLazyClone", []edit{{"volume/hydrate.go",
		"return d != nil && clone.Hydrated(d)", "return d != nil"}}},
	{"the metadata of a hydrated object go before the table that uses them", "volume TestMetadataOutliveTheirTable", []edit{{"volume/hydrate.go",
		"steps{&swapTables{Devices: swapped}, &removeFiles{Paths: []string{l.Metadata}}}",
		"steps{&removeFiles{Paths: []string{l.Metadata}}, &swapTables{Devices: swapped}}"}}},
	{"a restart forgets what is hydrating", "volume TestSourceVanishes", []edit{{"volume/manager.go",
		"\tm.queue.QueueAfter(m.finishing, lookForHydrated)\n", ""}}},
	{"the origin is not flushed before blocks leave a writecache", "writecaches", []edit{{"targets/writecache/writeback.go",
		"flushed := blk.FlushDevice(w.env, w.origin)", "var flushed error"}}},
	{"a commit of a writecache does not wait for writes in flight", "writecaches-hard", []edit{{"targets/writecache/worker.go",
		"\tw.until(func() bool { return w.writes.n[old] == 0 })\n", "\t_ = old\n"}}},
	{"a block of a writecache is free before its entry is cleared", "writecaches", []edit{{"targets/writecache/worker.go",
		"\terr := w.writeChanges()\n\tw.unclear = err != nil\n\treturn err\n", "\treturn nil\n"}}},
	{"a FUA write to a writecache ends before its commit", "writecaches", []edit{{"targets/writecache/map.go",
		"\t\thookOf(c).durable = true\n", ""}}},
	{"entries of a writecache are not flushed before the superblock", "writecaches", []edit{{"targets/writecache/format.go",
		"\tif err := blk.FlushDevice(w.env, w.fast); err != nil {\n\t\treturn err\n\t}\n", ""}}},
	{"a block is overwritten while it is written back", "writecaches-hard", []edit{{"targets/writecache/map.go",
		"case e.state == live:", "case e.state == live || e.state == writing:"}}},
	{"data are written before their bits are durable", "integrities", []edit{{"targets/integrity/bitmap.go",
		"b.start+sbSectors+first*bitmapSectors, blk.FUA)", "b.start+sbSectors+first*bitmapSectors, 0)"}}},
	{"bits are cleared while their regions are written", "integrities", []edit{{"targets/integrity/ranges.go",
		"return len(g.spans) == 0", "return true"}}},
	{"a commit of a journal is not flushed", "integrities", []edit{{"targets/integrity/journal.go",
		"\t\tat = j.next(at)\n\t}\n\treturn blk.FlushDevice(j.env, j.meta)\n", "\t\tat = j.next(at)\n\t}\n\treturn nil\n"}}},
	{"a journal that was emptied is continued with the same sequence number", "integrities-full", []edit{{"targets/integrity/replay.go",
		"j.wrote, j.fillSeq = false, nextSeq(j.fillSeq)", "j.wrote = false"}}},
	{"a block in a journal is read with the tag that its place had before", "tagged", []edit{{"targets/integrity/worker.go",
		"\t\t\tcopy(tag, im.tag(w.layout.tagSize))\n", ""}}},
	{"a committed block is not written back because of one that is not", "test/sim TestFoundBefore", []edit{{"targets/integrity/journal.go",
		"return newest == (slot{at, e}) || !j.isCommitted(newest.section)", "return newest == (slot{at, e})"}}},
	{"the data of a journal are written to their places without their tags", "tagged", []edit{{"targets/integrity/journal.go",
		"\t\tif err == nil {\n\t\t\terr = j.tags.write(tags, l.tag(run.sector))\n\t\t}\n", ""}}},
	{"a suspend records recalculated tags that are not flushed", "integrities-full", []edit{{"targets/integrity/integrity.go",
		"if err = g.flushDevices(); err == nil { // recalculated tags, too", "if err == nil {"}}},
	{"a region is not recalculated after a failed write", "targets/integrity TestEachFailingIO", []edit{{"targets/integrity/worker.go",
		"\t\t\tw.bitmap.doubt(s)\n", ""}}},
	{"writes to parts of a block do not wait for each other", "layers", []edit{{"targets/ebs/units.go",
		"if slices.ContainsFunc(e.busy, p.span.overlaps) ||", "if false &&"}}},
	{"a part of a block that is written with FUA is not durable", "layers", []edit{{"targets/ebs/worker.go",
		"b.Flags&blk.FUA)", "0)"}}},
	{"a write of whole blocks does not wait for one of a part", "targets/ebs TestWritesOfABlockWait", []edit{{"targets/ebs/ebs.go",
		"case c.Op != blk.Read && !e.take(c):", "case c.Op != blk.Read && !whole && !e.take(c):"}}},
	{"a path that fails leaves a bio shorter", "multipaths", []edit{{"targets/multipath/map.go",
		"\t\tc.Seek(p.pos, p.sectors)\n", ""}}},
	{"what waits for a path does not notice that one is back", "multipaths", []edit{{"targets/multipath/change.go",
		"\tm.resending.Cancel(m.expiry)\n\tm.resending.Queue(m.again)\n", ""}}},
	{"a suspend waits for a path", "multipaths", []edit{{"targets/multipath/multipath.go",
		"m.queues, m.stopped = false, true", "m.stopped = true"}}},
	{"one of several paths sends writes again", "blk/nbddev TestPath", []edit{{"blk/nbddev/connect.go",
		"&& !d.limits.ReadOnly && !d.o.Path", "&& !d.limits.ReadOnly"}}},
	{"a flush goes to the first target only", "layers", []edit{{"dm/slow.go",
		"\t\tp.sendClones(ti, &proto, ti.NumFlush)\n", `		if ti == t.targets[0] {
			p.sendClones(ti, &proto, ti.NumFlush)
			continue
		}
		for range ti.NumFlush {
			p.partDone(blk.OK)
		}
`}}},
}

// TestPlantedDefects checks that each defect can be planted. With -planted it builds the
// finder with one defect at a time and expects it to fail.
func TestPlantedDefects(t *testing.T) {
	for i, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			if list := overlay(t, d.edits); *planted && uint64(i)%*every == *first%*every {
				find(t, d.finder, list)
			}
		})
	}
}

// hangs is the time, as package watchdog counts it, after which a finder is ended. The
// longest that finds something takes three minutes.
const hangs = 20 * time.Minute

// find expects the finder to fail on the module with an overlay.
func find(t *testing.T, finder, overlay string) {
	pkg, test, args := "test/sim", "TestHistories/"+finder, []string{"-whole", "-few", "5000"}
	if p, t, ok := strings.Cut(finder, " "); ok {
		pkg, test, args = p, t, []string{"-race"} // which turns invariants and points on
	}
	run := "^" + strings.ReplaceAll(test, "/", "$/^") + "$"
	args = append([]string{"test", "-vet=off", "-count=1", "-timeout=0", "-overlay", overlay, "udm/" + pkg, "-run", run}, args...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // for -race
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second // processes that a killed go test leaves have its output open
	err := cmd.Start()
	if err == nil {
		err = watchdog.Wait(cmd, hangs)
	}
	switch text := out.String(); {
	case err == nil:
		t.Errorf("not found by %s", finder)
	case !strings.Contains(text, "--- FAIL: "+test):
		t.Errorf("%v\n%s", err, text)
	default:
		t.Logf("found by %s:%s", finder, firstLines(text, 2))
	}
}

// firstLines is what a failed test said first.
func firstLines(out string, n int) string {
	_, text, _ := strings.Cut(out, "_test.go:")
	lines := strings.SplitN(text, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], " ")
}

// overlay writes changed copies of source files and the list of them for go
// test.
func overlay(t *testing.T, edits []edit) string {
	dir := t.TempDir()
	replace := map[string]string{}
	for _, e := range edits {
		path, err := filepath.Abs(filepath.Join("../..", e.file))
		if err != nil {
			t.Fatal(err)
		}
		from := path
		if replace[path] != "" {
			from = replace[path]
		}
		p, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(p), e.old); n != 1 {
			t.Fatalf("the defect cannot be planted: %s has %d times\n%s", e.file, n, e.old)
		}
		replace[path] = filepath.Join(dir, strings.ReplaceAll(e.file, "/", "_"))
		if err := os.WriteFile(replace[path], []byte(strings.Replace(string(p), e.old, e.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
