package thinrescue

// kind is what the entries below a node are.
type kind uint8

const (
	none     kind = iota // not a sound node
	mappings             // of one volume
	devices              // volume to the root of its mappings
	details              // of volumes
	other                // of space maps
)

// info sums up the subtree below a sound node.
type info struct {
	low, high uint64 // lowest and highest key, if there are entries
	entries   uint64 // in its leaves
	newest    uint64 // entries with the time age
	age       uint32 // latest time in it
	broken    uint32 // nodes below that are damaged
	kind      kind
	level     uint8 // 0: a leaf
	state     state
	below     bool // a node that no volume reaches refers to it
}

// state is how far the weighing of a node is.
type state uint8

const (
	unweighed state = iota
	underWay
	weighed
)

// whole reports whether everything below can be read.
func (i *info) whole() bool { return i != nil && i.broken == 0 }

const chunk = 1024

// table has a value for each of some blocks. Its memory is that of the parts of the
// device where they are.
type table[T any] struct{ chunks []*[chunk]T }

func newTable[T any](blocks uint64) table[T] {
	return table[T]{make([]*[chunk]T, (blocks+chunk-1)/chunk)}
}

// at returns the value of a block, or nil if there is none near it.
func (t *table[T]) at(nr uint64) *T {
	if nr/chunk >= uint64(len(t.chunks)) || t.chunks[nr/chunk] == nil {
		return nil
	}
	return &t.chunks[nr/chunk][nr%chunk]
}

// make returns the value of a block of the device.
func (t *table[T]) make(nr uint64) *T {
	if t.chunks[nr/chunk] == nil {
		t.chunks[nr/chunk] = new([chunk]T)
	}
	return &t.chunks[nr/chunk][nr%chunk]
}

// each calls fn for the values that there are, in order of blocks.
func (t *table[T]) each(fn func(nr uint64, v *T)) {
	for i, c := range t.chunks {
		for j := 0; c != nil && j < chunk; j++ {
			fn(uint64(i*chunk+j), &c[j])
		}
	}
}
