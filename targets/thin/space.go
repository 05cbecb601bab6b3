package thin

import (
	"errors"
	"syscall"

	"udm/blk"
)

// errNoData is returned when the pool has no free data block.
var errNoData = errors.New("no free data block")

// modify changes the metadata by fn, which may allocate up to cost metadata blocks.
// It commits first if that frees enough of them. If fn may still need more than are
// free, it runs in a transaction of its own. If that one fails for lack of space, the
// pool turns read-only and nothing else is lost.
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

// alone changes the metadata by fn in a transaction of its own; the previous one has
// been committed. If fn fails with an error that undo accepts, its changes are taken
// back.
func (p *pool) alone(fn func() error, undo func(error) bool) error {
	if p.mode() >= modeOutOfMetadata {
		return syscall.EINVAL
	}
	err := fn()
	switch {
	case err == nil:
		if err = p.commitMetadata(); err == nil {
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
	p.log().Warn("a change of the metadata has been undone", "reason", err)
	switch {
	case isFull(err):
		p.setMode(modeOutOfMetadata)
	case err == blk.NoSpace:
		p.metadataFull()
	}
	return err
}

// isFull reports whether err means that no metadata block was left.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }

// allocate allocates a data block. The mode must be write. After errNoData the pool
// is out of data space.
func (p *pool) allocate() (uint64, error) {
	if !p.mayAllocate() {
		return 0, syscall.EINVAL
	}
	if err := p.findSpace(); err != nil {
		return 0, err
	}
	block, err := p.md.AllocDataBlock()
	if err == syscall.ENOSPC && p.md.FreeData() > 0 {
		// Blocks freed in this transaction can be allocated only after a commit.
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

// findSpace makes sure that a data block is free. It commits if blocks were freed in
// this transaction, and removes mappings of deleted volumes before the pool counts as
// full.
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
		p.log().Warn("free data blocks have reached the low water mark", "free", free, "mark", p.settings.lowWater)
		p.event()
	}
}
