package thin

import (
	"fmt"
	"syscall"

	"udm/dm"
)

// Preresume binds the pool to this table and grows it to its devices. A pool in mode
// fail resumes despite errors, so that its bios can end.
func (pt *poolTarget) Preresume() (err error) {
	p := pt.pool
	p.call(func() {
		err = pt.bindAndGrow()
		if p.mode() == modeFail {
			err = nil
		}
	})
	return err
}

func (pt *poolTarget) bindAndGrow() error {
	p := pt.pool
	p.bind(pt)
	grown1, err := pt.growData()
	if err != nil {
		return err
	}
	grown2, err := pt.growMetadata()
	if err != nil {
		return err
	}
	if grown1 || grown2 {
		// An error shows in the pool's mode.
		_ = p.tryCommit()
	}
	return nil
}

// bind puts the settings of a table in force.
func (p *pool) bind(pt *poolTarget) {
	p.settings.bound = pt
	p.take(pt)
	p.settings.features = pt.requested
	if p.settings.features.passdown = pt.passdown(); p.settings.features.passdown != pt.requested.passdown {
		p.log().Warn("discards are not passed down: the data device does not support them", "data", pt.data.Name())
	}
	p.published.discards.Store(p.settings.features.discard)
	p.published.sectors.Store(pt.blocks() * p.blockSectors)
	p.settings.lowWater = pt.lowWater
	p.markCheck()
	p.setMode(pt.mode)
	if p.short.meta {
		_ = p.tryCommit()
	}
	p.deleting = true // a deletion may have been interrupted
}

func (pt *poolTarget) growData() (grown bool, err error) {
	p := pt.pool
	have, want := p.md.DataBlocks(), pt.blocks()
	switch {
	case want < have:
		return false, invalid(fmt.Sprintf("pool target (%d blocks) too small: expected %d", want, have))
	case want == have || p.md.MustCheck():
		return false, nil
	}
	p.log().Info("the data device grows", "from", have, "to", want)
	return true, p.grow(p.md.ResizeData, want)
}

func (pt *poolTarget) growMetadata() (grown bool, err error) {
	p := pt.pool
	have, want := p.md.MetadataBlocks(), pt.metadataBlocks()
	switch {
	case want < have:
		return false, invalid(fmt.Sprintf("metadata device (%d blocks) too small: expected %d", want, have))
	case want == have || p.md.MustCheck():
		return false, nil
	}
	if p.mode() == modeOutOfMetadata {
		p.setMode(modeWrite)
	}
	p.log().Info("the metadata device grows", "from", have, "to", want)
	return true, p.grow(p.md.ResizeMetadata, want)
}

func (p *pool) grow(resize func(uint64) error, blocks uint64) error {
	if p.short.meta {
		return dm.Errorf(syscall.ENOSPC, "cannot grow the pool: the disk below its metadata device is full; make space there")
	}
	err := resize(blocks)
	if err != nil {
		p.metadataFailed(err)
		return failed(err, "cannot grow the pool: "+err.Error())
	}
	return nil
}

// Resume resumes the thins. The bios that waited for space come first.
func (pt *poolTarget) Resume() {
	p := pt.pool
	p.call(p.retryAll)
	pt.resumeThins()
	p.call(func() {
		p.settings.lowWaterOn = false
		p.setSuspended(false)
		p.tick()
	})
}

// resumeThins undoes what Presuspend, possibly of the previous table, did to the
// thins.
func (pt *poolTarget) resumeThins() {
	p := pt.pool
	p.inbox.mu.Lock()
	ds := p.inbox.held
	p.inbox.held = nil
	p.inbox.mu.Unlock()
	for _, d := range ds {
		d.InternalResume()
	}
}

func (p *pool) isSuspended() bool {
	p.inbox.mu.Lock()
	defer p.inbox.mu.Unlock()
	return p.inbox.suspended
}

func (p *pool) setSuspended(on bool) {
	p.inbox.mu.Lock()
	p.inbox.suspended = on
	p.inbox.mu.Unlock()
}

// Presuspend suspends the pool's thins without flushing.
func (pt *poolTarget) Presuspend() {
	p := pt.pool
	p.setSuspended(true)
	for _, t := range p.activeThins() {
		d := t.t.Device()
		d.InternalSuspend()
		p.inbox.mu.Lock()
		p.inbox.held = append(p.inbox.held, d)
		p.inbox.mu.Unlock()
	}
}

func (pt *poolTarget) PresuspendUndo() {
	pt.resumeThins()
	pt.pool.setSuspended(false)
}

// Postsuspend commits everything.
func (pt *poolTarget) Postsuspend() {
	p := pt.pool
	p.call(func() {
		p.owner.queue.Cancel(p.owner.waker)
		p.owner.queue.Cancel(p.owner.timeout)
	})
	p.owner.queue.Flush()
	p.call(func() { _ = p.tryCommit() })
}
