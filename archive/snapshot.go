package archive

import (
	"context"
	"fmt"
	"io"
)

// Cache keeps blobs near, by the names of their chunks. It may forget them at any time, and
// return what is damaged.
type Cache interface {
	Get(key string) ([]byte, bool)
	Put(key string, p []byte)
}

// Snapshot is an archived snapshot to read. The pages of its index are read as they are
// needed: opening a large one is cheap, and of one with a damaged page the other gibibytes
// can be read. It is safe for concurrent use.
type Snapshot struct {
	a      *Archive
	x      *index
	cache  Cache // may be nil
	pages  recent[ID, *contents]
	chunks recent[ID, []byte]
}

// How many chunks and pages of an index are in memory. A page is smaller than a chunk.
const (
	maxChunks = 16
	maxPages  = 16
)

// Snapshot opens the snapshot with an id or a name. cache may be nil.
func (a *Archive) Snapshot(ctx context.Context, word string, cache Cache) (*Snapshot, error) {
	x, err := a.find(ctx, word)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{a: a, x: x, cache: cache}
	s.chunks.max, s.pages.max = maxChunks, maxPages
	return s, nil
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

// fetch reads a chunk from the cache, or from the store.
func (s *Snapshot) fetch(ctx context.Context, c *contents, l location) ([]byte, error) {
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

// contents returns contents that have all extents between a sector and end.
func (s *Snapshot) contents(ctx context.Context, sector uint64) (c *contents, end uint64, err error) {
	i := s.x.pages.from(sector)
	if i == len(s.x.pages.extents) {
		return &s.x.contents, s.x.sectors(), nil // of all that follows, or of nothing
	}
	e := s.x.pages.extents[i]
	if e.sector > sector {
		return &contents{}, e.sector, nil
	}
	c, err = s.page(ctx, e)
	return c, min(e.end(), s.x.sectors()), err
}

func (s *Snapshot) page(ctx context.Context, e extent) (*contents, error) {
	l := s.x.pages.chunks[e.chunk]
	c, err := s.pages.get(l.id, func() (*contents, error) {
		p, err := s.fetch(ctx, &s.x.pages, l)
		if err != nil {
			return nil, err
		}
		return s.x.readPage(p, e)
	})
	if err != nil {
		return nil, fmt.Errorf("the index of snapshot %s: %w", s.x.ID, err)
	}
	return c, nil
}

// Read fills p from a sector on; its length is a multiple of 512.
func (s *Snapshot) Read(ctx context.Context, p []byte, at uint64) error {
	clear(p)
	for stop := min(at+uint64(len(p))/sector, s.x.sectors()); at < stop; {
		c, end, err := s.contents(ctx, at)
		if err != nil {
			return err
		}
		end = min(stop, end)
		for i := c.from(at); i < len(c.extents) && c.extents[i].sector < end; i++ {
			if err := s.copy(ctx, c, c.extents[i], p, at, end); err != nil {
				return err
			}
		}
		p, at = p[(end-at)*sector:], end
	}
	return nil
}

// copy copies what an extent has between two sectors. p begins at the first of them.
func (s *Snapshot) copy(ctx context.Context, c *contents, e extent, p []byte, at, end uint64) error {
	l := c.chunks[e.chunk]
	b, err := s.chunks.get(l.id, func() ([]byte, error) { return s.fetch(ctx, c, l) })
	if err != nil {
		return err
	}
	from, to := max(at, e.sector), min(end, e.end())
	skip := (uint64(e.skip) + from - e.sector) * sector
	if skip+(to-from)*sector > uint64(len(b)) {
		return fmt.Errorf("snapshot %s: %w", s.x.ID, errBlob)
	}
	copy(p[(from-at)*sector:(to-at)*sector], b[skip:])
	return nil
}

// Extents calls fn for each run of sectors that are stored, from one on, in order. A page of
// the index that cannot be read is one run.
func (s *Snapshot) Extents(ctx context.Context, at uint64, fn func(sector, sectors uint64) bool) {
	for at < s.x.sectors() {
		c, end, err := s.contents(ctx, at)
		if err != nil {
			c = &contents{extents: []extent{{sector: at, sectors: uint32(end - at)}}}
		}
		for i := c.from(at); i < len(c.extents); i++ {
			if e := c.extents[i]; !fn(e.sector, uint64(e.sectors)) {
				return
			}
		}
		at = end
	}
}

// Each calls fn for the data of the snapshot, in order, in parts of at most a chunk. The
// last part may end within a sector.
func (s *Snapshot) Each(ctx context.Context, fn func(offset uint64, p []byte) error) error {
	for at := uint64(0); at < s.x.sectors(); {
		c, end, err := s.contents(ctx, at)
		if err != nil {
			return err
		}
		for _, e := range c.extents {
			p := make([]byte, uint64(e.sectors)*sector)
			if err := s.copy(ctx, c, e, p, e.sector, e.end()); err != nil {
				return err
			}
			offset := e.sector * sector
			if err := fn(offset, p[:min(uint64(len(p)), s.x.Size-offset)]); err != nil {
				return err
			}
		}
		at = end
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
