package snapshot

// The recorder is the goroutine that may write areas: the one that set
// persistent.turn to running. The word holds one of these states, a flag, and above
// them the number up to which records may have data.
const (
	idle     uint64 = iota // there is no recorder
	running                // a goroutine is the recorder
	inDevice               // an I/O of the recorder is in flight or waits for space
	states   = 3
	wanted   = 4 // a record arrived while there was a recorder
	turnBits = 3
)

// enter announces record r. It reports whether the caller has become the recorder;
// otherwise the present one will look at r.
func (p *persistent) enter(r *record) bool {
	for {
		t := p.turn.Load()
		upTo := max(t>>turnBits, r.n+1) << turnBits
		if t&states == idle {
			if p.turn.CompareAndSwap(t, upTo|running) {
				return true
			}
		} else if p.turn.CompareAndSwap(t, upTo|t&states|wanted) {
			return false
		}
	}
}

// resume makes the caller the recorder if there is none but one is wanted.
func (p *persistent) resume() bool {
	t := p.turn.Load()
	return t&(states|wanted) == idle|wanted && p.turn.CompareAndSwap(t, t&^(states|wanted)|running)
}

// release ends the recorder's turn unless records arrived: then the recorder must
// look again. In a hurry it ends the turn all the same, and the caller of run looks
// later.
func (p *persistent) release(hurry bool) bool {
	for {
		t := p.turn.Load()
		switch {
		case hurry:
			if p.turn.CompareAndSwap(t, t&^states|wanted) {
				return true
			}
		case t&wanted != 0:
			if p.turn.CompareAndSwap(t, t&^wanted) {
				return false
			}
		case p.turn.CompareAndSwap(t, t&^states):
			return true
		}
	}
}

// sent is called when the I/O for the data of r was submitted. A record that is still
// copying is now away.
func (p *persistent) sent(r *record) {
	if r.state.Load() == copying && r.state.CompareAndSwap(copying, away) {
		p.away.Add(1)
	}
}

// commit is called by the owner of the record of e.
func (p *persistent) commit(e *exception, ok bool) {
	r := e.record
	if !ok {
		p.valid.Store(false)
	}
	if r.state.Swap(copied) == away {
		p.away.Add(-1)
	}
	reach(beforeEnter)
	owes := p.enter(r) && p.run()
	if p.stay(r) {
		e.done(r.state.Load() == recorded)
	}
	p.recordOwed(owes)
}

// patience is how often an owner checks whether its record is done, about as long as
// it takes to wake a goroutine on another processor. Whether there is still a reason
// to wait is checked less often, because that reads a cache line that the recorder
// writes.
const (
	patience = 32 * look
	look     = 256
)

// stay waits for r while another goroutine is recording it, or copies a record before
// it. It returns false if it left r to the recorder.
func (p *persistent) stay(r *record) bool {
	for n := 0; !r.isOver(); n++ {
		if n%look != 0 || n < p.patience && p.soon() {
			continue
		}
		reach(beforeLeave)
		if r.state.CompareAndSwap(copied, left) {
			return false
		}
	}
	return true
}

// soon reports whether records are being recorded without waiting for a device.
func (p *persistent) soon() bool {
	t := p.turn.Load() & states
	return t == running || t == idle && p.away.Load() <= 0
}

// recordOwed records what a turn that ended in a hurry has left, unless another
// goroutine does so.
func (p *persistent) recordOwed(owes bool) {
	for owes && p.resume() {
		owes = p.run()
	}
	if p.watched.Load() {
		p.idle.Wake()
	}
}

// goOn runs after an I/O or a wait for space.
func (p *persistent) goOn() {
	p.turn.Add(^uint64(0)) // running
	p.recordOwed(p.run())
}
