package thin

import (
	"udm/blk"
	"udm/dm"
	"udm/targets/internal/prison"
)

// deferBio hands c to the owner.
func (t *thin) deferBio(c *dm.Clone) {
	t.mu.Lock()
	t.bios.Push(c)
	t.mu.Unlock()
	t.pool.wakeFor(t)
}

func (t *thin) deferBios(l dm.CloneList) {
	if l.Empty() {
		return
	}
	t.mu.Lock()
	t.bios.Append(&l)
	t.mu.Unlock()
	t.pool.wakeFor(t)
}

// deferCell releases a cell whose holder has been dealt with, and defers its inmates.
func (t *thin) deferCell(cell *prison.Cell) {
	t.deferBios(t.pool.prison.ReleaseNoHolder(cell))
}

func (t *thin) takeRetries() dm.CloneList {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.retries.Take()
}

// wakeFor tells the owner that t has work for it.
func (p *pool) wakeFor(t *thin) {
	if t.ready.CompareAndSwap(false, true) {
		p.inbox.mu.Lock()
		p.inbox.ready = append(p.inbox.ready, t)
		p.inbox.mu.Unlock()
	}
	p.wake()
}

// Presuspend requeues all waiting bios if the suspend is noflush. Until Postsuspend,
// bios that would have to wait are requeued too.
func (t *thin) Presuspend() {
	if t.t.NoflushSuspending() {
		t.pool.call(t.startRequeue)
	}
}

func (t *thin) Postsuspend() { t.pool.call(func() { t.requeue.Store(false) }) }

// PresuspendUndo resets what Presuspend did when the suspend is abandoned.
func (t *thin) PresuspendUndo() { t.Postsuspend() }

func (t *thin) startRequeue() {
	t.requeue.Store(true)
	t.mu.Lock()
	l, cells := t.bios.Take(), t.cells
	l.Append(&t.retries)
	t.cells = nil
	t.mu.Unlock()
	requeueAll(l)
	for _, cell := range cells {
		t.requeueCell(cell)
	}
}

func (t *thin) requeueCell(cell *prison.Cell) { requeueAll(t.pool.prison.Release(cell)) }

// requeueAll gives bios back to the core to be submitted again.
func requeueAll(l dm.CloneList) {
	for c := l.Pop(); c != nil; c = l.Pop() {
		requeue(c)
	}
}

func requeue(c *dm.Clone) {
	h := hookOf(c)
	h.requeue, h.refused = true, false
	c.Complete(blk.IOErr)
}

func (t *thin) Preresume() error {
	if t.origin != nil {
		t.originSize.Store(t.origin.Limits().Size)
	}
	return nil
}
