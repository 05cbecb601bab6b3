package archive

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// Cache keeps blobs near, by the names of their chunks. It may forget them at any time, and
// return what is damaged.
type Cache interface {
	Get(key string) ([]byte, bool)
	Put(key string, p []byte)
}

// Snapshot is an archived snapshot to read. It is safe for concurrent use. Lock order: mu
// is a leaf.
type Snapshot struct {
	a     *Archive
	x     *index
	cache Cache // may be nil

	mu    sync.Mutex
	held  map[uint32]*held // guarded by mu; chunks in memory or on their way
	order []uint32         // guarded by mu; of held, the oldest first
}

// held is a chunk that was, or is being, loaded.
type held struct {
	ready chan struct{} // closed when it was
	p     []byte
	err   error
}

// maxHeld is how many chunks are in memory.
const maxHeld = 16

// Snapshot opens the snapshot with an id or a name. cache may be nil.
func (a *Archive) Snapshot(ctx context.Context, word string, cache Cache) (*Snapshot, error) {
	x, err := a.find(ctx, word)
	if err == nil {
		err = a.fill(ctx, x)
	}
	if err != nil {
		return nil, err
	}
	return a.snapshot(x, cache), nil
}

func (a *Archive) snapshot(x *index, cache Cache) *Snapshot {
	return &Snapshot{a: a, x: x, cache: cache, held: map[uint32]*held{}}
}

// Info tells about the snapshot.
func (s *Snapshot) Info() Info { return s.x.Info }

// chunk reads a chunk from the store.
func (a *Archive) chunk(ctx context.Context, c *contents, l location) ([]byte, error) {
	b, err := a.blob(ctx, c, l)
	if err != nil {
		return nil, err
	}
	return a.openChunk(c, l, b)
}

func (a *Archive) blob(ctx context.Context, c *contents, l location) ([]byte, error) {
	b, err := a.store.Get(ctx, packs+c.packs[l.pack], int64(l.offset), int64(l.length))
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", c.packs[l.pack], err)
	}
	return b, nil
}

func (a *Archive) openChunk(c *contents, l location, b []byte) ([]byte, error) {
	p, err := a.codec.chunk(l.id, b)
	if err != nil {
		return nil, fmt.Errorf("pack %s, chunk at %d: %w", c.packs[l.pack], l.offset, err)
	}
	return p, nil
}

// load returns a chunk. Several that want one wait for one load.
func (s *Snapshot) load(ctx context.Context, n uint32) ([]byte, error) {
	s.mu.Lock()
	h := s.held[n]
	if h == nil {
		h = &held{ready: make(chan struct{})}
		s.held[n] = h
		s.order = append(s.order, n)
		if len(s.order) > maxHeld {
			delete(s.held, s.order[0])
			s.order = s.order[1:]
		}
		s.mu.Unlock()
		h.p, h.err = s.fetch(ctx, n)
		if h.err != nil {
			s.mu.Lock()
			if s.held[n] == h {
				delete(s.held, n) // try again next time
			}
			s.mu.Unlock()
		}
		close(h.ready)
		return h.p, h.err
	}
	s.mu.Unlock()
	<-h.ready
	return h.p, h.err
}

func (s *Snapshot) fetch(ctx context.Context, n uint32) ([]byte, error) {
	c, l := &s.x.contents, s.x.chunks[n]
	if s.cache == nil {
		return s.a.chunk(ctx, c, l)
	}
	key := fmt.Sprintf("%x", l.id)
	if b, ok := s.cache.Get(key); ok {
		if p, err := s.a.openChunk(c, l, b); err == nil {
			return p, nil
		}
	}
	b, err := s.a.blob(ctx, c, l)
	if err != nil {
		return nil, err
	}
	p, err := s.a.openChunk(c, l, b)
	if err == nil {
		s.cache.Put(key, b)
	}
	return p, err
}

// Read fills p from a sector on; its length is a multiple of 512.
func (s *Snapshot) Read(ctx context.Context, p []byte, at uint64) error {
	end := at + uint64(len(p))/sector
	clear(p)
	for i := s.x.from(at); i < len(s.x.extents) && s.x.extents[i].sector < end; i++ {
		e := s.x.extents[i]
		c, err := s.load(ctx, e.chunk)
		if err != nil {
			return err
		}
		from, to := max(at, e.sector), min(end, e.end())
		skip := (uint64(e.skip) + from - e.sector) * sector
		if skip+(to-from)*sector > uint64(len(c)) {
			return fmt.Errorf("snapshot %s: %w", s.x.ID, errBlob)
		}
		copy(p[(from-at)*sector:(to-at)*sector], c[skip:])
	}
	return nil
}

// Extents calls fn for each run of sectors that are stored, in order.
func (s *Snapshot) Extents(at uint64, fn func(sector, sectors uint64) bool) {
	for i := s.x.from(at); i < len(s.x.extents); i++ {
		e := s.x.extents[i]
		if !fn(e.sector, uint64(e.sectors)) {
			return
		}
	}
}

// Each calls fn for the data of the snapshot, in order, in parts of at most a chunk. The
// last part may end within a sector.
func (s *Snapshot) Each(ctx context.Context, fn func(offset uint64, p []byte) error) error {
	for _, e := range s.x.extents {
		p := make([]byte, uint64(e.sectors)*sector)
		if err := s.Read(ctx, p, e.sector); err != nil {
			return err
		}
		offset := e.sector * sector
		if err := fn(offset, p[:min(uint64(len(p)), s.x.Size-offset)]); err != nil {
			return err
		}
	}
	return nil
}

// Restore writes the snapshot to w, which has its size and reads as zeroes.
func (s *Snapshot) Restore(ctx context.Context, w io.WriterAt, progress func(done, total uint64)) error {
	return s.Each(ctx, func(offset uint64, p []byte) error {
		if progress != nil {
			progress(offset, s.x.Size)
		}
		_, err := w.WriteAt(p, int64(offset))
		return err
	})
}
