package thin

// A volume with many mappings is deleted in portions. The message detaches the volume
// in one transaction, which frees its id. The owner's passes then remove its
// mappings, one portion per pass, and serve other bios in between. After a restart
// the pool continues. When the last table of a pool is closed in good order, all
// deletions are finished first: other users of the pool, such as the kernel, would
// not continue them.

// delete deletes a volume. It leaves most of the mappings of a large one to later
// passes.
func (p *pool) delete(id uint32) error {
	p.deleting = true
	p.wake()
	return p.md.DetachThin(id, uint64(p.deleteMost.Get()))
}

// deleteSome removes one portion of the mappings of deleted volumes per pass. Nothing
// is written while the pool is suspended.
func (p *pool) deleteSome() {
	if !p.deleting || p.isSuspended() || p.short.meta {
		return
	}
	p.deletePortion()
	if p.mode() == modeOutOfData {
		_ = p.commit() // bios are waiting for the freed blocks
	}
	if p.deleting {
		p.wake()
	}
}

// deletePortion removes one portion. A pool that cannot change its metadata tries
// again after the next resume.
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

// deleteAll finishes all deletions.
func (p *pool) deleteAll() {
	for p.deleting && p.mode() < modeOutOfMetadata {
		p.deletePortion()
	}
	_ = p.commit()
}
