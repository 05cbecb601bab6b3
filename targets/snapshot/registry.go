package snapshot

import (
	"cmp"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"

	"udm/dm"
	"udm/targets/internal/kcopyd"
)

// registry is the state shared by all targets of one dm.Control (in the kernel,
// globals of the module): the origins and their snapshots.
type registry struct {
	threshold      *dm.Param
	noSpaceTimeout *dm.Param
	failNoSpace    *dm.Param
	throttle       *kcopyd.Throttle

	mu     sync.Mutex
	groups map[dm.Number]*group // guarded by mu; by origin
}

type registryKey struct{}

// The parameters of the kernel module, and two more.
const (
	thresholdParam = "dm_snapshot.snapshot_cow_threshold"
	throttleParam  = "dm_snapshot.snapshot_copy_throttle"
	noSpaceParam   = "dm_snapshot.no_space_timeout"
	failParam      = "dm_snapshot.error_if_no_space"
)

func params() []*dm.Param {
	return []*dm.Param{
		dm.NewParam(thresholdParam, 2048, "copies in progress for a snapshot above which writes wait"),
		dm.NewParam(throttleParam, 100, "percent of the time in which chunks may be copied"),
		dm.NewParam(noSpaceParam, 60, "seconds that writes wait while the disk below a store is full; 0: for ever"),
		dm.NewParam(failParam, 0, "1: writes fail at once while the disk below a store is full"),
	}
}

func registryOf(t *dm.Target) *registry {
	return t.Shared(registryKey{}, func() any { return newRegistry(t) }).(*registry)
}

func newRegistry(t *dm.Target) *registry {
	throttle := kcopyd.NewThrottle(t.Env(), t.Param(throttleParam).Get)
	return &registry{
		threshold: t.Param(thresholdParam), noSpaceTimeout: t.Param(noSpaceParam), failNoSpace: t.Param(failParam),
		throttle: throttle, groups: make(map[dm.Number]*group),
	}
}

// group is an origin and its snapshots (the kernel's struct origin).
type group struct {
	registry *registry
	number   dm.Number
	users    int                     // guarded by registry.mu; targets that use it
	origins  []*origin               // guarded by registry.mu; active snapshot-origin targets
	members  atomic.Pointer[members] // replaced under registry.mu
	// byCow are the members by their COW devices, and merges is how many of them
	// merge: they are found without a look at thousands of others.
	byCow  map[dm.Number][]*snapshot // guarded by registry.mu
	merges atomic.Int32
	// dropped is how many snapshots are in memory before the beginning of the list.
	dropped int // guarded by registry.mu
}

// members is an immutable list.
type members struct {
	snaps    []*snapshot // largest chunk size first
	boundary uint64      // smallest chunk size in sectors; 0 for none
}

// groupOf returns the group of an origin and takes a reference, which leave drops.
func (w *registry) groupOf(n dm.Number) *group {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups[n]
	if g == nil {
		g = &group{registry: w, number: n, byCow: make(map[dm.Number][]*snapshot)}
		g.members.Store(&members{})
		w.groups[n] = g
	}
	g.users++
	return g
}

func (g *group) leave() {
	w := g.registry
	w.mu.Lock()
	defer w.mu.Unlock()
	if g.users--; g.users == 0 {
		delete(w.groups, g.number)
	}
}

// setLocked replaces the list by an ordered one. Called with registry.mu held.
func (g *group) setLocked(snaps []*snapshot) {
	m := &members{snaps: snaps}
	for i := len(snaps); i > 0 && m.boundary == 0; i-- {
		m.boundary = snaps[i-1].size
	}
	g.members.Store(m)
}

// insertLocked inserts s behind the snapshots of its chunk size. Other members may be
// reading theirs from their stores: they count with what was known when they were
// inserted. An origin may have thousands of snapshots, so it searches by bisection, and
// does not copy the list for a snapshot at its end: readers of earlier lists do not look
// that far. Called with registry.mu held.
func (g *group) insertLocked(s *snapshot) {
	s.size = s.chunkSize()
	if list := g.members.Load().snaps; isLast(list, s) && (len(list) == 1 || list[len(list)-2].size >= s.size) {
		g.setLocked(list)
		return
	}
	list := g.without(s)
	i := sort.Search(len(list), func(i int) bool { return list[i].size < s.size })
	if i == len(list) {
		g.setLocked(append(list, s))
		return
	}
	g.setLocked(slices.Concat(list[:i], []*snapshot{s}, list[i:]))
}

func isLast(list []*snapshot, s *snapshot) bool { return len(list) > 0 && list[len(list)-1] == s }

// without returns the list without s. The list itself is immutable. The first of it is
// not worth a copy: tables of thousands are replaced and removed in that order. Called
// with registry.mu held.
func (g *group) without(s *snapshot) []*snapshot {
	list := g.members.Load().snaps
	i := slices.Index(list, s)
	switch {
	case i < 0:
		return list
	case i == 0 && g.dropped < len(list):
		g.dropped++
		return list[1:]
	}
	g.dropped = 0
	return slices.Concat(list[:i], list[i+1:])
}

// chunkSize is in sectors; it is 0 for a snapshot that waits for its exceptions.
func (s *snapshot) chunkSize() uint64 {
	if s.has(flagWaiting) {
		return 0
	}
	return s.body.Load().store.chunkSize()
}

// sharing is the snapshots of a group that have the same COW device.
type sharing struct {
	src   *snapshot // active: source of a handover
	dst   *snapshot // waits for the handover
	count int
}

// sharing is the snapshots that share the COW device with s, which is among them.
func (g *group) sharing(s *snapshot) sharing {
	g.registry.mu.Lock()
	defer g.registry.mu.Unlock()
	return g.sharingLocked(s)
}

// sharingLocked is those that share it with s. Called with registry.mu held.
func (g *group) sharingLocked(s *snapshot) (sh sharing) {
	for _, o := range g.byCow[s.cow.Number] {
		if o.has(flagActive) {
			sh.src = o
		} else {
			sh.dst = o
		}
		sh.count++
	}
	return sh
}

// merging returns the group's snapshot-merge target, or nil.
func (g *group) merging() *snapshot {
	if g.merges.Load() == 0 {
		return nil
	}
	for _, s := range g.members.Load().snaps {
		if s.merge != nil {
			return s
		}
	}
	return nil
}

// register adds a snapshot that is not active yet. It reports whether the snapshot
// will get its exceptions from an active one.
func (g *group) register(s *snapshot) (waits bool, err error) {
	g.registry.mu.Lock()
	defer g.registry.mu.Unlock()
	if waits, err = g.handoverLocked(s); err != nil {
		return false, err
	}
	if waits {
		s.set(flagWaiting, 0)
	}
	g.byCow[s.cow.Number] = append(g.byCow[s.cow.Number], s)
	if s.merge != nil {
		g.merges.Add(1)
	}
	g.insertLocked(s)
	return waits, nil
}

func (g *group) handoverLocked(s *snapshot) (waits bool, err error) {
	sh := g.sharingLocked(s)
	switch {
	case sh.count == 2 || sh.dst != nil:
		return false, dm.Errorf(syscall.EINVAL, "Snapshot cow pairing for exception table handover failed")
	case sh.src == nil || s.merge == nil:
		return sh.src != nil, nil
	case g.merging() != nil:
		return false, dm.Errorf(syscall.EINVAL, "A snapshot is already merging.")
	case sh.src.body.Load().store.merger() == nil:
		return false, dm.Errorf(syscall.EINVAL, "Snapshot exception store does not support snapshot-merge.")
	}
	return true, nil
}

// reregister moves s to its place after its chunk size has become known.
func (g *group) reregister(s *snapshot) {
	g.registry.mu.Lock()
	g.insertLocked(s)
	g.registry.mu.Unlock()
}

// sort orders the list after a handover, which has changed the chunk sizes of its source
// and its destination.
func (g *group) sort(sh sharing) {
	g.registry.mu.Lock()
	defer g.registry.mu.Unlock()
	sh.src.size, sh.dst.size = sh.src.chunkSize(), sh.dst.chunkSize()
	snaps := slices.Clone(g.members.Load().snaps)
	slices.SortStableFunc(snaps, func(a, b *snapshot) int { return cmp.Compare(b.size, a.size) })
	g.setLocked(snaps)
}

// unregister removes s. Afterwards origin writes create no exceptions for it.
func (g *group) unregister(s *snapshot) {
	g.registry.mu.Lock()
	g.setLocked(g.without(s))
	g.dropCowLocked(s)
	g.registry.mu.Unlock()
	s.set(0, flagActive)
	s.pending.barrier()
}

// dropCowLocked takes s out of what is known by COW device. Called with registry.mu held.
func (g *group) dropCowLocked(s *snapshot) {
	n := s.cow.Number
	was := len(g.byCow[n])
	g.byCow[n] = slices.DeleteFunc(g.byCow[n], func(o *snapshot) bool { return o == s })
	if s.merge != nil && len(g.byCow[n]) < was {
		g.merges.Add(-1)
	}
	if len(g.byCow[n]) == 0 {
		delete(g.byCow, n)
	}
}

// barrier waits for whoever is creating an exception.
func (t *pendingTable) barrier() {
	slots := t.made()
	for i := range slots {
		slots[i].mu.Lock()
		//lint:ignore SA2001 taking each lock once is the purpose
		slots[i].mu.Unlock()
	}
}

// front returns the device through which the origin is written, unless that is d: the
// device of a snapshot-origin or snapshot-merge target.
func (g *group) front(d *dm.Device) *dm.Device {
	g.registry.mu.Lock()
	defer g.registry.mu.Unlock()
	var front *dm.Device
	if len(g.origins) > 0 {
		front = g.origins[0].target.Device()
	} else if m := g.merging(); m != nil {
		front = m.target.Device()
	}
	if front == d {
		return nil
	}
	return front
}
