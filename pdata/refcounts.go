package pdata

// RefCounts counts references to blocks in little memory. It keeps one byte per
// block, only for the parts of the device that have references.
type RefCounts struct {
	parts map[uint64]*[countsPart]uint8
	many  map[uint64]uint32 // counts that do not fit in a byte
}

const (
	countsPart = 1 << 16
	countsFull = 255
)

// NewRefCounts makes counts of zero.
func NewRefCounts() *RefCounts {
	return &RefCounts{parts: map[uint64]*[countsPart]uint8{}, many: map[uint64]uint32{}}
}

// Add adds n references to a block and returns the new count.
func (t *RefCounts) Add(nr uint64, n uint32) uint32 {
	p := t.parts[nr/countsPart]
	if p == nil {
		p = new([countsPart]uint8)
		t.parts[nr/countsPart] = p
	}
	c := &p[nr%countsPart]
	if sum := uint32(*c) + n; *c < countsFull && sum < countsFull && n < countsFull {
		*c = uint8(sum)
		return sum
	}
	if *c < countsFull {
		t.many[nr] = uint32(*c)
		*c = countsFull
	}
	t.many[nr] += n
	return t.many[nr]
}

// Get is a block's count.
func (t *RefCounts) Get(nr uint64) uint32 {
	p := t.parts[nr/countsPart]
	if p == nil {
		return 0
	}
	if c := p[nr%countsPart]; c < countsFull {
		return uint32(c)
	}
	return t.many[nr]
}

// each calls fn for the blocks of [begin, end) whose count is not 0, in order.
func (t *RefCounts) each(begin, end uint64, fn func(nr uint64, n uint32)) {
	for begin < end {
		stop := min(end, (begin/countsPart+1)*countsPart)
		if p := t.parts[begin/countsPart]; p != nil {
			for nr := begin; nr < stop; nr++ {
				if p[nr%countsPart] != 0 {
					fn(nr, t.Get(nr))
				}
			}
		}
		begin = stop
	}
}
