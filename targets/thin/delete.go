package thin

// A volume with many mappings is deleted in portions. The message detaches it, in one
// transaction, so that its id is free; passes remove the mappings, one portion each,
// while other bios are served. A restart of the pool goes on with it. A pool that its
// last table leaves in good order has nothing left to delete: others that use it, such
// as the kernel, would leave it as it is.

// delete deletes a volume, but for mappings that it leaves to passes.
func (p *pool) delete(id uint32) error {
	p.deleting = true
	p.wake()
	return p.md.DetachThin(id, uint64(p.deleteMost.Get()))
}

// deleteSome removes a portion of the mappings of deleted volumes and leaves more of
// them to the next pass. Nothing is written while the pool is suspended.
func (p *pool) deleteSome() {
	if !p.deleting || p.isSuspended() || p.short.meta {
		return
	}
	p.deletePortion()
	if p.mode() == modeOutOfData {
		_ = p.commit() // what has become free is waited for
	}
	if p.deleting {
		p.wake()
	}
}

// deletePortion removes one portion. A pool that may not change its metadata looks
// again when it is resumed.
func (p *pool) deletePortion() {
	if more, err := p.md.Detached(); err != nil || !more {
		p.deleting = false
		return
	}
	most := max(1, int(p.deleteMost.Get()))
	err := p.modify(p.md.DeleteCost(most), func() error { return p.md.DeleteSome(most) })
	p.deleting = err == nil
	p.transaction.freed = p.transaction.freed || err == nil
}

// deleteAll ends all deletions.
func (p *pool) deleteAll() {
	for p.deleting && p.mode() < modeOutOfMetadata {
		p.deletePortion()
	}
	_ = p.commit()
}
