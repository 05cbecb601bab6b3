package env

// simWorkers are Workers of a Sim: a task for each work that could run.
type simWorkers struct {
	s       *Sim
	name    string
	most    int
	room    func()
	waiting workRing
	refused bool // room must be called
	running int  // tasks that run works
	rooms   int  // tasks that call room
	closed  bool
}

// defaultWorkers replaces the number of processors, which must not affect a run.
const defaultWorkers = 4

// NewWorkers makes workers whose works run when the simulator is stepped, in
// random order.
func (s *Sim) NewWorkers(name string, n, depth int, room func()) Workers {
	if n <= 0 {
		n = defaultWorkers
	}
	return &simWorkers{s: s, name: name, most: n, room: room, waiting: newWorkRing(depth)}
}

func (p *simWorkers) Queue(w *Work) bool {
	switch {
	case p.closed:
		return false
	case w.queued:
		return true
	case p.waiting.full():
		p.refused = p.room != nil
		return false
	}
	p.waiting.push(w)
	if p.running < p.most {
		p.running++
		p.s.Go(p.name, p.run)
	}
	return true
}

// run runs one work. Another task continues, so that other tasks may run in
// between.
func (p *simWorkers) run() {
	defer func() {
		if p.waiting.n > 0 {
			p.s.Go(p.name, p.run)
		} else {
			p.running--
		}
	}()
	if p.waiting.n == 0 {
		return // other tasks have run all works
	}
	w := p.waiting.take(p.pick())
	if p.refused && p.waiting.roomy() {
		p.refused = false
		p.rooms++
		p.s.Go(p.name+" room", func() {
			defer func() { p.rooms-- }()
			p.room()
		})
	}
	w.Fn()
}

func (p *simWorkers) pick() int {
	if !p.s.random {
		return 0
	}
	return p.s.rng.IntN(p.waiting.n)
}

func (p *simWorkers) Close() {
	p.closed, p.refused = true, false
	p.s.until(func() bool { return p.running == 0 && p.rooms == 0 })
}
