package nbd

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Slabs hold requests and replies. One goroutine, a connection's reader,
// allocates pieces from the beginning of a slab; every piece holds a reference,
// and so does the reader. Dropping the last reference returns the slab.
const (
	slabSize  = 256 << 10 // bytes; the smallest, for many small pieces
	slabRoom  = 4 << 10   // extra bytes, so that a power of two fits with its headers
	slabKinds = 8         // slabSize<<0 … slabSize<<7: room for the largest payload
	// bigPiece is the largest piece that shares a slab. Larger pieces get a slab
	// of their own.
	bigPiece = (slabSize + slabRoom) / 2
)

type slab struct {
	buf  []byte
	refs atomic.Int32
	kind int
}

// memory recycles slabs for all connections of a server.
type memory struct {
	pools [slabKinds]sync.Pool
}

// take returns a slab of at least n bytes with one reference.
func (m *memory) take(n int) *slab {
	kind := bits.Len(uint(max(n-slabRoom, 1)-1) / slabSize)
	s, _ := m.pools[kind].Get().(*slab)
	if s == nil {
		s = &slab{buf: make([]byte, slabSize<<kind+slabRoom), kind: kind}
	}
	s.refs.Store(1)
	return s
}

func (m *memory) give(s *slab) { m.pools[s.kind].Put(s) }

// unref drops a reference and reports whether it was the last one.
func (s *slab) unref() bool { return s.refs.Add(-1) == 0 }

// sole reports whether the caller's reference is the only one. Then no piece is
// in use, and the slab may be reused from its beginning.
func (s *slab) sole() bool { return s.refs.Load() == 1 }
