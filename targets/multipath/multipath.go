// Package multipath is the target "multipath": it uses several devices that lead to one
// disk, and goes on while one of them works (drivers/md/dm-mpath.c, dm-ps-*.c). The manual
// is [Type]'s Doc.
//
// # Paths
//
// Paths are in groups. One group is the current one until all its paths have failed; its
// selector chooses a path for each bio:
//
//	          an I/O fails on it; fail_path
//	usable ──────────────────────────────────► failed
//	   ▲                                          │
//	   └── reinstate_path; a test succeeds ◄──────┘
//
// Tests are udm's own: the kernel leaves them to multipathd. They are reads of the first
// block of paths that I/O has failed on. What a message failed, a message reinstates.
//
// # Bios
//
//	Map ─ a path ─► path ─ error of the path ─► queued ─► resend ─ another path ─► path
//	 └─ none: queued (queue_if_no_path) ─ a path is back ─► resend
//	          fails; in a noflush suspend it is pushed back
//
// An error of the path is one that another path may not have: not a lack of space, nor an
// operation that the disk does not have, nor an invalid request. A write that has failed on
// one path may still have happened; it is repeated before its End, so its user cannot tell.
// It must not happen later, when the user has written something else: a path that is
// given up must forget what it has been given. Disks at NBD servers do with path=1.
//
// A suspend ends the queueing, so that nothing in flight waits for a path: queued bios
// fail, or are pushed back.
//
// # Locks
//
// mu guards everything that changes. Events, messages of the log and I/O come after it.
// Lock order: mu, then those of the queues.
package multipath

import (
	"sync"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

const timeoutParam = "dm_multipath.queue_if_no_path_timeout_secs"

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "multipath", Version: [3]uint32{1, 14, 0}, Features: dm.Singleton | dm.Immutable,
		New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc,
		Params: []*dm.Param{dm.NewParam(timeoutParam, 0, "seconds after which I/O fails that queue_if_no_path lets wait; 0: never")}}
}

type multipath struct {
	target *dm.Target
	line   *Line
	groups []*group

	resending env.Queue
	again     *env.Work // resend
	expiry    *env.Work // expire
	testing   env.Queue // tests may block
	poll      *env.Work // testFailed
	wait      env.Wait  // for tests

	mu      sync.Mutex
	current *group       // guarded by mu; nil: none
	next    *group       // guarded by mu; to be used next; nil: none
	unused  bool         // guarded by mu; see Status
	usable  int          // guarded by mu; paths
	queues  bool         // guarded by mu; bios wait if there is no path
	saved   bool         // guarded by mu; queues, before the suspend
	stopped bool         // guarded by mu; not resumed yet, or going to be suspended
	queued  dm.CloneList // guarded by mu
	tests   int          // guarded by mu; under way
}

// group is a priority group.
type group struct {
	number   int // from 1 on
	kind     *kind
	selector selector
	paths    []*path
	bypassed bool    // guarded by multipath.mu
	order    []*path // guarded by multipath.mu; usable paths, the one used longest ago first
}

// path is a device that leads to the disk. What changes is guarded by multipath.mu.
type path struct {
	dev        *dm.Dev
	group      *group
	throughput uint32

	failed   bool
	held     bool // a message failed it: tests do not reinstate it
	failures uint32
	bios     uint64 // under way
	bytes    uint64 // of these
	times    times
	test     *test // nil: none was made
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	line, wrong := parse(args)
	m := &multipath{target: t, line: line, queues: line.QueueIfNoPath, unused: true, stopped: true}
	for i := range line.Groups {
		if err := m.addGroup(&line.Groups[i]); err != nil {
			return nil, err
		}
	}
	if wrong != nil {
		return nil, wrong
	}
	if line.Initial > 0 {
		m.next = m.groups[line.Initial-1]
	}
	t.NumFlush, t.NumDiscard, t.NumWriteZeroes = 1, 1, 1
	e := t.Env()
	m.resending, m.testing, m.wait = e.NewQueue("dm-multipath"), e.NewQueue("dm-multipath-test"), e.NewWait()
	m.again, m.expiry, m.poll = env.NewWork(m.resend), env.NewWork(m.expire), env.NewWork(m.testFailed)
	return m, nil
}

func (m *multipath) addGroup(from *Group) error {
	g := &group{number: len(m.groups) + 1, kind: kindOf(from.Selector)}
	m.groups = append(m.groups, g)
	for _, p := range from.Paths {
		dev, err := m.target.Open(p.Device, m.target.Writable())
		if err != nil {
			return dm.Because(err, "error getting device")
		}
		g.paths = append(g.paths, &path{dev: dev, group: g, throughput: p.Throughput, times: times{average: one}})
	}
	if g.kind != nil {
		g.selector = g.kind.make(from, m.target.Env())
	}
	g.order = append(g.order, g.paths...)
	m.usable += len(g.paths)
	return nil
}

// Close waits for tests.
func (m *multipath) Close() {
	m.testing.Close()
	m.wait.Until(func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.tests == 0
	})
	m.resending.Close()
}

// each calls fn for all paths.
func (m *multipath) each(fn func(*path)) {
	for _, g := range m.groups {
		for _, p := range g.paths {
			fn(p)
		}
	}
}

func (m *multipath) Areas() (as []dm.Area) {
	m.each(func(p *path) { as = append(as, dm.Area{Dev: p.dev, Start: m.target.Begin, Len: m.target.Len}) })
	return as
}

// Extents is the map of a usable path.
func (m *multipath) Extents(offset, sectors uint64) []blk.Extent {
	if p := m.anyUsable(); p != nil {
		return blk.ExtentsOf(p.dev.Device, offset, sectors)
	}
	return blk.AllData(offset, sectors)
}

func (m *multipath) anyUsable() *path {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.groups {
		if len(g.order) > 0 {
			return g.order[0]
		}
	}
	return nil
}

// Presuspend ends the queueing.
func (m *multipath) Presuspend() {
	m.mu.Lock()
	m.saved = m.saved || m.queues
	m.queues, m.stopped = false, true
	m.mu.Unlock()
	m.testing.Cancel(m.poll)
	m.resending.Cancel(m.expiry)
	m.resending.Queue(m.again)
}

// PresuspendUndo goes on.
func (m *multipath) PresuspendUndo() { m.Resume() }

// Resume restores the queueing.
func (m *multipath) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queues = m.queues || m.saved
	m.saved, m.stopped = false, false
	m.armExpiryLocked()
	m.armTestsLocked()
}

func (m *multipath) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if kind == dm.TableText {
		return m.tableLocked().String()
	}
	s := &Status{Unused: m.unused, Current: m.currentLocked()}
	for i, g := range m.groups {
		s.Groups = append(s.Groups, m.statusLocked(g, &m.line.Groups[i]))
	}
	return s.String()
}

// currentLocked is the number of the group that is used next.
func (m *multipath) currentLocked() int {
	switch {
	case m.next != nil:
		return m.next.number
	case m.current != nil:
		return m.current.number
	}
	return min(1, len(m.groups))
}

// tableLocked is the line with what messages have changed.
func (m *multipath) tableLocked() *Line {
	l := *m.line
	l.QueueIfNoPath, l.Initial, l.Groups = m.queues, m.currentLocked(), nil
	for i, g := range m.groups {
		named := m.line.Groups[i]
		named.Paths = append([]Path(nil), named.Paths...)
		for j, p := range g.paths {
			named.Paths[j].Device = p.dev.Name()
		}
		l.Groups = append(l.Groups, named)
	}
	return &l
}

func (m *multipath) statusLocked(g *group, line *Group) GroupStatus {
	s := GroupStatus{State: 'E'}
	switch {
	case g.bypassed:
		s.State = 'D'
	case g == m.current:
		s.State = 'A'
	}
	if g.kind.weighs {
		s.Words = []string{utoa(line.Weight), utoa(line.Threshold)}
	}
	for _, p := range g.paths {
		s.Paths = append(s.Paths, PathStatus{p.dev.Name(), p.failed, p.failures, g.selector.status(p)})
	}
	return s
}
