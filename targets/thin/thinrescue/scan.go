package thinrescue

import (
	"udm/blk"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// scanBlocks is how many blocks are read at once.
const scanBlocks = 256

// search knows every sound node of a metadata device.
type search struct {
	pool    *Pool
	infos   table[info]
	indexes []uint64          // indexes of metadata space maps
	copies  []uint64          // superblocks of metadata snapshots
	used    *pdata.Used       // blocks in use; nil: not known
	held    map[uint64]*trees // of metadata snapshots, by their device trees
}

// newSearch reads the whole device, but for holes.
func newSearch(p *Pool) *search {
	s := &search{pool: p, infos: newTable[info](p.blocks)}
	buf := make([]byte, scanBlocks*pdata.BlockSize)
	for nr, n := uint64(0), uint64(0); nr < p.blocks; nr += n {
		if n = p.hole(nr); n == 0 {
			n = min(scanBlocks, p.blocks-nr)
			s.part(nr, buf[:n*pdata.BlockSize])
		}
		if p.progress != nil {
			p.progress(nr+n, p.blocks)
		}
	}
	return s
}

// hole is how many whole blocks from nr on are in a hole of the device.
func (p *Pool) hole(nr uint64) uint64 {
	e := blk.ExtentsOf(p.meta, nr*pdata.BlockSectors, (p.blocks-nr)*pdata.BlockSectors)[0]
	if e.Data {
		return 0
	}
	return e.Sectors / pdata.BlockSectors
}

// part looks at blocks from nr on. If they cannot be read at once, each is by itself.
func (s *search) part(nr uint64, buf []byte) {
	err := blk.ReadSectors(s.pool.env, s.pool.meta, buf, nr*pdata.BlockSectors)
	for len(buf) > 0 {
		p := (*[pdata.BlockSize]byte)(buf)
		if err == nil || blk.ReadSectors(s.pool.env, s.pool.meta, p[:], nr*pdata.BlockSectors) == nil {
			s.look(nr, p)
		}
		nr, buf = nr+1, buf[pdata.BlockSize:]
	}
}

// look notes what a block is.
func (s *search) look(nr uint64, p *[pdata.BlockSize]byte) {
	if le.Uint64(p[8:]) != nr { // all kinds that matter have their location there
		return
	}
	if n, ok := pdata.NodeIn(p, nr); ok {
		s.node(s.infos.make(nr), n)
		return
	}
	switch {
	case nr != thinmeta.SuperBlock && thinmeta.KindSuper.Verify(p[:], nr) == "":
		s.copies = append(s.copies, nr)
	case pdata.IsIndex(p, nr):
		s.indexes = append(s.indexes, nr)
	}
}

// node notes what a node says by itself. Those that have children are weighed later.
func (s *search) node(i *info, n pdata.Leaf) {
	i.entries, i.state = uint64(n.Len()), weighed
	if n.Len() > 0 {
		i.low, i.high = n.Key(0), n.Key(n.Len()-1)
	}
	switch {
	case n.Internal():
		i.state, i.kind = unweighed, other
	case n.Size() == thinmeta.DetailsSize:
		i.kind = details
		for j := range n.Len() {
			d := thinmeta.DetailsCodec.Get(n.Value(j))
			i.at(max(d.Created, d.Snapshotted), 1)
		}
	case n.Size() != 8:
		i.kind = other
	case s.mayHaveRoots(n):
		i.state, i.kind = unweighed, devices
	default:
		i.kind = mappings
		for j := range n.Len() {
			i.at(thinmeta.BlockTimeOf(le.Uint64(n.Value(j))).Time, 1)
		}
	}
}

// at counts entries with a time.
func (i *info) at(time uint32, n uint64) {
	switch {
	case n == 0:
	case time > i.age || i.newest == 0:
		i.age, i.newest = time, n
	case time == i.age:
		i.newest += n
	}
}

// mayHaveRoots tells a leaf of the device tree by its values, which are blocks of this
// device. Those of mappings are larger but for data block 0.
func (s *search) mayHaveRoots(n pdata.Leaf) bool {
	for j := range n.Len() {
		if le.Uint64(n.Value(j)) >= s.pool.blocks || n.Key(j) > lastID {
			return false
		}
	}
	return n.Len() > 0
}

// info returns what lies below a node, or nil if it is not a sound one.
func (s *search) info(nr uint64) *info {
	i := s.infos.at(nr)
	switch {
	case i == nil || i.kind == none || i.state == underWay:
		return nil
	case i.state == unweighed:
		i.state = underWay
		s.weigh(nr, i)
		i.state = weighed
	}
	return i
}

// weigh adds up the children of a node.
func (s *search) weigh(nr uint64, i *info) {
	n, err := pdata.ReadNode(s.pool.bm, nr)
	if err != nil {
		i.kind = none // it cannot be read any more
		return
	}
	if n.Internal() {
		s.weighInternal(i, n)
		return
	}
	s.weighRoots(i, n)
}

// weighInternal takes the kind of the first sound child as that of all.
func (s *search) weighInternal(i *info, n pdata.Leaf) {
	*i = info{kind: mappings, state: underWay, level: 1}
	first := true
	for j := range n.Len() {
		c := s.info(le.Uint64(n.Value(j)))
		switch {
		case c == nil:
			i.broken++
			continue
		case first:
			i.kind, i.level, first = c.kind, c.level+1, false
			i.low = c.low
		case c.kind != i.kind, c.level+1 != i.level, c.entries > 0 && (c.low < n.Key(j) || j+1 < n.Len() && c.high >= n.Key(j+1)):
			i.broken++
			continue
		}
		i.entries, i.broken = i.entries+c.entries, i.broken+c.broken
		i.high = max(i.high, c.high)
		i.at(c.age, c.newest)
	}
}

// weighRoots decides whether a leaf is of the device tree. Several values that small
// cannot be mappings: they would all be to data block 0.
func (s *search) weighRoots(i *info, n pdata.Leaf) {
	sound := 0
	for j := range n.Len() {
		c := s.info(le.Uint64(n.Value(j)))
		if c == nil || c.kind != mappings && c.entries > 0 {
			i.broken++
			continue
		}
		sound++
		i.broken += c.broken
		i.at(c.age, c.newest)
	}
	if n.Len() == 1 && sound == 0 {
		*i = info{kind: mappings, entries: 1, low: i.low, high: i.high}
		i.at(thinmeta.BlockTimeOf(le.Uint64(n.Value(0))).Time, 1)
	}
}

// live reports whether a node is in use, as far as that is known.
func (s *search) live(nr uint64) bool {
	if s.used == nil {
		return true
	}
	used, known := s.used.Has(nr)
	return used || !known
}
