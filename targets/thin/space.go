package thin

import (
	"errors"
	"syscall"
)

// errNoData says that the pool has no free data block.
var errNoData = errors.New("no free data block")

// commit makes the metadata durable. An error means that the pool is, or was
// already, not in a mode that changes metadata.
func (p *pool) commit() error {
	if p.mode() >= modeOutOfMetadata {
		return syscall.EINVAL
	}
	if err := p.md.Commit(); err != nil {
		p.metadataFailed(err)
		return err
	}
	p.committed()
	if p.md.FreeMetadata() == 0 && !p.mode().readOnly() {
		p.setMode(modeOutOfMetadata)
	}
	if p.mode() == modeOutOfData && p.md.FreeData() > 0 {
		p.setMode(modeWrite)
		p.retryAll()
	}
	return nil
}

// allocate takes a data block, in mode write. errNoData: there is none; the pool
// is out of data space now.
func (p *pool) allocate() (uint64, error) {
	if p.mode() != modeWrite {
		return 0, syscall.EINVAL
	}
	if err := p.findSpace(); err != nil {
		return 0, err
	}
	block, err := p.md.AllocDataBlock()
	switch {
	case err == syscall.ENOSPC:
		p.setMode(modeOutOfData)
		return 0, errNoData
	case err != nil:
		p.metadataFailed(err)
		return 0, err
	case p.md.FreeMetadata() > 0:
		return block, nil
	}
	// What is left is kept for commits.
	return block, p.commit()
}

// findSpace makes sure that a data block is free, by a commit if need be: blocks
// that were freed in this transaction are free after it only.
func (p *pool) findSpace() error {
	free := p.md.FreeData()
	p.checkLowWater(free)
	if free > 0 {
		return nil
	}
	if err := p.commit(); err != nil {
		return err
	}
	if p.md.FreeData() == 0 {
		p.setMode(modeOutOfData)
		return errNoData
	}
	return nil
}

func (p *pool) checkLowWater(free uint64) {
	if free <= p.lowWater && !p.lowWaterOn {
		p.lowWaterOn = true
		p.log().Warn("the free data blocks have come down to the low water mark", "free", free, "mark", p.lowWater)
		p.event()
	}
}
