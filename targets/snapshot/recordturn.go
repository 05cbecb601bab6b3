package snapshot

// The recorder is the one that may write areas: whoever has made persistent.turn
// running. The word has one of these states, a bit, and behind them the number
// up to which there may be records with data.
const (
	idle     uint64 = iota // nobody is the recorder
	running                // a goroutine is at it
	inDevice               // an I/O of the recorder is under way, or waits for space
	states   = 3
	wanted   = 4 // somebody has come with a record while there was a recorder
	turnBits = 3
)

// enter brings record r. It reports whether the caller is the recorder now;
// otherwise the one that there is looks at r later.
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

// resume makes the caller the recorder if one has stopped though it was wanted.
func (p *persistent) resume() bool {
	t := p.turn.Load()
	return t&(states|wanted) == idle|wanted && p.turn.CompareAndSwap(t, t&^(states|wanted)|running)
}

// release ends the recorder's turn, unless it is wanted: then it has to look
// again. In a hurry it does not; whoever called run does later.
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

// sent is called when the I/O of r's data was submitted. The data of a record that
// is still copying is away from now on.
func (p *persistent) sent(r *record) {
	if r.state.Load() == copying && r.state.CompareAndSwap(copying, away) {
		p.away.Add(1)
	}
}

// commit is called by the owner of e's record.
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

// patience is how often an owner looks whether its record is over. That takes about
// as long as to wake a goroutine on another processor. Whether there is still
// something to wait for is looked at once in a while: the answer is in a cache
// line that the recorder writes to.
const (
	patience = 32 * look
	look     = 256
)

// stay waits for r to be over as long as another goroutine is at it, or at the
// copy of a record in front of it. It reports false if it has left r to the
// recorder.
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

// soon tells whether records are being recorded without waiting for a device.
func (p *persistent) soon() bool {
	t := p.turn.Load() & states
	return t == running || t == idle && p.away.Load() <= 0
}

// recordOwed records what a turn that was ended in a hurry has left, unless another
// goroutine does.
func (p *persistent) recordOwed(owes bool) {
	for owes && p.resume() {
		owes = p.run()
	}
	if p.watched.Load() {
		p.idle.Wake()
	}
}

// goOn is run after an I/O, or after a wait for space.
func (p *persistent) goOn() {
	p.turn.Add(^uint64(0)) // running
	p.recordOwed(p.run())
}
