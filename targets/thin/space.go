package thin

import (
	"errors"
	"syscall"

	"udm/blk"
)

// errNoData says that the pool has no free data block.
var errNoData = errors.New("no free data block")

// commit makes the metadata durable. [blk.NoSpace]: it waits for space. Another
// error means that the pool is, or was already, not in a mode that changes metadata.
func (p *pool) commit() error {
	if p.short.meta {
		return blk.NoSpace
	}
	return p.tryCommit()
}

// tryCommit is commit also when there was no space a moment ago.
func (p *pool) tryCommit() error {
	if p.mode() >= modeOutOfMetadata {
		return syscall.EINVAL
	}
	switch err := p.md.Commit(); err {
	case nil:
		p.committed()
		return nil
	case blk.NoSpace:
		p.metadataFull()
		return err
	default:
		p.metadataFailed(err)
		return err
	}
}

// committed is called after a commit.
func (p *pool) committed() {
	p.settle()
	p.short.meta = false
	if p.md.FreeMetadata() == 0 && !p.mode().readOnly() {
		p.setMode(modeOutOfMetadata)
	}
	p.spaceFound()
}

// modify changes the metadata by fn, which takes up to cost metadata blocks. What
// it may take is there before it begins, by a commit if need be. If it may be more
// than there is, it is a transaction of its own, so that nothing else is lost
// should there not be enough: then the pool turns read-only, with all that has been
// acknowledged.
func (p *pool) modify(cost uint64, fn func() error) error {
	if p.short.meta {
		return blk.NoSpace
	}
	if p.mode() < modeOutOfMetadata && p.md.FreeMetadata() >= cost {
		err := fn()
		if err != nil {
			p.metadataFailed(err)
		}
		return err
	}
	if err := p.commit(); err != nil {
		return err
	}
	if p.mode() < modeOutOfMetadata && p.md.FreeMetadata() >= cost {
		return p.modify(cost, fn)
	}
	return p.alone(fn, isFull)
}

// alone changes the metadata by fn in a transaction of its own; the last one has
// been committed. If it fails for a reason that undo accepts, that leaves no trace.
func (p *pool) alone(fn func() error, undo func(error) bool) error {
	if p.mode() >= modeOutOfMetadata {
		return syscall.EINVAL
	}
	err := fn()
	switch {
	case err == nil:
		if err = p.md.Commit(); err == nil {
			p.committed()
			return nil
		}
		undo = func(err error) bool { return isFull(err) || err == blk.NoSpace }
	case p.md.Err() == nil:
		return err // nothing was changed
	}
	if !undo(err) || p.md.Undo() != nil {
		p.metadataFailed(err)
		return err
	}
	p.log().Warn("a change of the metadata is taken back", "reason", err)
	switch {
	case isFull(err):
		p.setMode(modeOutOfMetadata)
	case err == blk.NoSpace:
		p.metadataFull()
	}
	return err
}

// isFull reports whether there was no metadata block left.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }

// allocate takes a data block, in mode write. errNoData: there is none; the pool
// is out of data space now.
func (p *pool) allocate() (uint64, error) {
	if !p.mayAllocate() {
		return 0, syscall.EINVAL
	}
	if err := p.findSpace(); err != nil {
		return 0, err
	}
	block, err := p.md.AllocDataBlock()
	if err == syscall.ENOSPC && p.md.FreeData() > 0 {
		// What is free was in use at the last commit.
		if err := p.commit(); err != nil {
			return 0, err
		}
		block, err = p.md.AllocDataBlock()
	}
	switch {
	case err == syscall.ENOSPC:
		p.outOfSpace()
		err = errNoData
	case err != nil:
		p.metadataFailed(err)
	}
	return block, err
}

// findSpace makes sure that a data block is free, by a commit if need be: blocks
// that were freed in this transaction are free after it only. Deleted volumes give
// back what they have before the pool is called full.
func (p *pool) findSpace() error {
	free := p.md.FreeData()
	p.checkLowWater(free)
	if free > 0 {
		return nil
	}
	if err := p.commit(); err != nil {
		return err
	}
	for p.md.FreeData() == 0 {
		if !p.deleting {
			p.outOfSpace()
			return errNoData
		}
		p.deletePortion()
		if err := p.commit(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pool) checkLowWater(free uint64) {
	if free <= p.settings.lowWater && !p.settings.lowWaterOn {
		p.settings.lowWaterOn = true
		p.log().Warn("the free data blocks have come down to the low water mark", "free", free, "mark", p.settings.lowWater)
		p.event()
	}
}
