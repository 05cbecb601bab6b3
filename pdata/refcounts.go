package pdata

// Tally counts references to blocks in little memory: a byte for each block of
// the parts where there are any.
type Tally struct {
	parts map[uint64]*[tallyPart]uint8
	many  map[uint64]uint32 // counts that a byte does not hold
}

const (
	tallyPart = 1 << 16
	tallyFull = 255
)

// NewTally makes a tally of zeroes.
func NewTally() *Tally {
	return &Tally{parts: map[uint64]*[tallyPart]uint8{}, many: map[uint64]uint32{}}
}

// Add counts n more references to a block and returns the count.
func (t *Tally) Add(nr uint64, n uint32) uint32 {
	p := t.parts[nr/tallyPart]
	if p == nil {
		p = new([tallyPart]uint8)
		t.parts[nr/tallyPart] = p
	}
	c := &p[nr%tallyPart]
	if sum := uint32(*c) + n; *c < tallyFull && sum < tallyFull && n < tallyFull {
		*c = uint8(sum)
		return sum
	}
	if *c < tallyFull {
		t.many[nr] = uint32(*c)
		*c = tallyFull
	}
	t.many[nr] += n
	return t.many[nr]
}

// Get is a block's count.
func (t *Tally) Get(nr uint64) uint32 {
	p := t.parts[nr/tallyPart]
	if p == nil {
		return 0
	}
	if c := p[nr%tallyPart]; c < tallyFull {
		return uint32(c)
	}
	return t.many[nr]
}

// each calls fn for the blocks of [begin, end) that are counted, in order.
func (t *Tally) each(begin, end uint64, fn func(nr uint64, n uint32)) {
	for begin < end {
		stop := min(end, (begin/tallyPart+1)*tallyPart)
		if p := t.parts[begin/tallyPart]; p != nil {
			for nr := begin; nr < stop; nr++ {
				if p[nr%tallyPart] != 0 {
					fn(nr, t.Get(nr))
				}
			}
		}
		begin = stop
	}
}
