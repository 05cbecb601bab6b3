package thin

import (
	"context"
	"log/slog"
	"time"

	"udm/blk"
)

// mode is what a pool can still do (the kernel's enum pool_mode), best first.
//
//	          no free data block,            free blocks, or a new table
//	          or no space below it
//	write ───────────────────────► outOfData ───────────────────────► write
//	  │ │                              │
//	  │ └─ no free metadata block ─────┼─────► outOfMetadata ─ resized ─► write
//	  │                                │            │
//	  └─ metadata operation failed,    ▼            ▼
//	     or table says read_only ─► readOnly ─ a table without read_only, and
//	                                   │       no needs_check ─► write
//	                                   ▼
//	     abort failed, from any ──►  fail, for good
//
// To enter write, the needs_check flag must be clear; otherwise the mode stays.
type mode uint32

const (
	modeWrite         mode = iota // metadata may be changed
	modeOutOfData                 // the same, but no data block can be allocated: see shortage, too
	modeOutOfMetadata             // as readOnly, until the metadata device grows
	modeReadOnly                  // metadata may not be changed
	modeFail                      // all I/O fails
)

func (m mode) readOnly() bool { return m == modeOutOfMetadata || m == modeReadOnly }

// word is the mode as the status line shows it.
func (m mode) word() Mode {
	switch {
	case m == modeOutOfData:
		return OutOfDataSpace
	case m.readOnly():
		return ReadOnly
	}
	return ReadWrite
}

func (p *pool) mode() mode { return mode(p.published.mode.Load()) }

// name is the mode as log messages show it.
func (m mode) name() string {
	return [...]string{"write", "out of data space", "out of metadata space", "read-only", "fail"}[m]
}

// setMode is the only place where the mode changes.
func (p *pool) setMode(to mode) {
	from := p.mode()
	to = p.allowed(from, to)
	switch to {
	case modeFail:
		p.md.SetReadOnly()
		p.errorRetries(p.errorStatus())
	case modeOutOfMetadata, modeReadOnly:
		p.md.SetReadOnly()
		p.errorRetries(p.errorStatus())
	case modeOutOfData:
		p.settings.outOfData = true
		if wait := p.noSpaceTimeout.Get(); !p.settings.features.errorIfNoSpace && wait > 0 {
			p.owner.queue.QueueAfter(p.owner.timeout, time.Duration(wait)*time.Second)
		}
	case modeWrite:
		p.owner.queue.Cancel(p.owner.timeout)
		p.settings.outOfData, p.short.data = false, false
		if p.settings.bound != nil {
			p.settings.features.errorIfNoSpace = p.settings.bound.requested.errorIfNoSpace
		}
		p.md.SetReadWrite()
	}
	p.published.mode.Store(uint32(to))
	if to == modeFail {
		p.clearCaches()
	}
	if p.settings.bound != nil {
		p.settings.bound.mode = to
	}
	if from != to {
		p.event()
		p.reportMode(from, to)
	}
}

func (p *pool) reportMode(from, to mode) {
	level, waits := slog.LevelWarn, ""
	switch {
	case to == modeWrite:
		level = slog.LevelInfo
	case to == modeFail:
		level = slog.LevelError
	case to == modeOutOfData && p.settings.features.errorIfNoSpace:
		waits = "; writes that need space fail"
	case to == modeOutOfData:
		waits = "; writes that need space wait"
	}
	p.log().Log(context.Background(), level, "pool goes from mode "+from.name()+" to "+to.name()+waits)
}

// allowed returns the mode that a requested transition leads to.
func (p *pool) allowed(from, to mode) mode {
	switch {
	case from == modeFail:
		return modeFail
	case to != modeWrite || !p.md.MustCheck():
		return to
	}
	p.log().Error("the metadata must be checked before the pool can be written to")
	if from == modeWrite {
		return modeReadOnly
	}
	return from
}

// errorStatus is the status of bios that the pool fails.
func (p *pool) errorStatus() blk.Status {
	if p.settings.outOfData {
		return blk.NoSpace
	}
	return blk.IOErr
}

// refusal is the status of a bio that needs a new block when there is none. OK means
// that it waits for a resume or for space.
func (p *pool) refusal() blk.Status {
	switch {
	case p.mode() != modeOutOfData && p.short.any():
		return blk.NoSpace
	case p.mode() != modeOutOfData:
		return blk.IOErr
	case p.settings.features.errorIfNoSpace:
		return blk.NoSpace
	}
	return blk.OK
}

// noSpaceTimedOut fails the writes that waited too long for space.
func (p *pool) noSpaceTimedOut() {
	if p.mode() == modeOutOfData && !p.settings.features.errorIfNoSpace {
		p.settings.features.errorIfNoSpace = true
		p.log().Warn("no space was added in time; writes that need space fail")
		p.event()
		p.errorRetries(blk.NoSpace)
	}
}

// metadataFailed goes back to the last commit after a metadata operation failed, sets
// needs_check, and stops changing the metadata. A commit that is being written
// finishes first.
func (p *pool) metadataFailed(reason error) {
	p.awaitCommit()
	p.transaction.aborts++
	p.short.meta = false
	p.log().Error("metadata operation failed; going back to the last commit", "reason", reason)
	if err := p.md.Abort(); err != nil {
		p.log().Error("the last commit cannot be read", "reason", err)
		p.setMode(modeFail)
	}
	p.clearCaches()
	p.setCheck()
	p.setMode(modeReadOnly)
}

// setCheck sets needs_check. It takes effect in memory even if the write fails: the
// disk then has the last commit, which is sound, and markCheck tries again.
func (p *pool) setCheck() {
	if err := p.md.SetNeedsCheck(); err != nil {
		p.log().Error("needs_check could not be written", "reason", err)
	} else {
		p.log().Warn("the metadata is marked needs_check")
	}
}

// markCheck writes needs_check if an earlier attempt failed.
func (p *pool) markCheck() {
	if p.md.MustCheck() && !p.md.NeedsCheck() && !p.md.Failed() {
		p.setCheck()
	}
}
