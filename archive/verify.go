package archive

import (
	"context"
	"fmt"
)

// Verified is what a check has found.
type Verified struct {
	Snapshots int      `json:"snapshots"`
	Chunks    int      `json:"chunks"` // that were read
	Bytes     uint64   `json:"bytes"`  // of them
	Damaged   []string `json:"damaged,omitempty"`
}

// maxDamaged is how many damages are listed.
const maxDamaged = 1000

// Verify reads all snapshots, or those with the given ids or names, and all their pages and
// chunks, each once. The error says that the store could not be read.
func (a *Archive) Verify(ctx context.Context, words []string, progress func(done, total uint64)) (Verified, error) {
	c := &check{a: a, progress: progress, seen: map[place]bool{}}
	if len(words) == 0 {
		err := c.each(ctx)
		return c.Verified, err
	}
	for _, w := range words {
		x, err := a.find(ctx, w)
		if err == nil {
			err = c.snapshot(ctx, x)
		}
		if err != nil {
			return c.Verified, err
		}
	}
	return c.Verified, nil
}

// check is a check that runs. Its errors say that the store could not be read.
type check struct {
	Verified
	a        *Archive
	progress func(done, total uint64) // may be nil
	seen     map[place]bool           // pages and chunks
}

// snapshot checks what was not seen of a snapshot. If a page is damaged, the others are
// checked each by itself.
func (c *check) snapshot(ctx context.Context, x *index) error {
	c.Snapshots++
	pages := x.unseen(c.seen)
	if c.a.fillFrom(ctx, x, pages) == nil {
		return c.chunks(ctx, x, pages)
	}
	for i := range pages {
		if err := c.a.fillFrom(ctx, x, pages[i:i+1]); err != nil {
			c.damage(err)
		} else if err := c.chunks(ctx, x, pages[i:i+1]); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// chunks checks the chunks in pages that were read.
func (c *check) chunks(ctx context.Context, x *index, pages []extent) error {
	for _, p := range pages {
		c.seen[x.pages.place(p.chunk)] = true
	}
	for i := range x.chunks {
		p := x.place(uint32(i))
		if c.seen[p] {
			continue
		}
		c.seen[p] = true
		if c.progress != nil {
			c.progress(uint64(i), uint64(len(x.chunks)))
		}
		if err := c.chunk(ctx, x, uint32(i)); err != nil {
			return err
		}
	}
	return nil
}

func (v *Verified) damage(err error) {
	if len(v.Damaged) < maxDamaged {
		v.Damaged = append(v.Damaged, err.Error())
	}
}

func (c *check) chunk(ctx context.Context, x *index, n uint32) error {
	l := x.chunks[n]
	b, err := c.a.blob(ctx, &x.contents, l)
	c.Chunks, c.Bytes = c.Chunks+1, c.Bytes+uint64(len(b))
	if err == nil {
		_, err = c.a.openChunk(&x.contents, l, b)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.damage(fmt.Errorf("snapshot %s (%s): %w", x.Name, x.ID, err))
	}
	return nil
}

// each checks all snapshots. Those whose index is damaged are damage.
func (c *check) each(ctx context.Context) error {
	ids, err := c.a.ids(ctx)
	for i := 0; i < len(ids) && err == nil; i++ {
		x, xerr := c.a.index(ctx, ids[i])
		switch {
		case isGone(xerr):
		case ctx.Err() != nil:
			err = ctx.Err()
		case xerr != nil:
			c.damage(xerr)
		default:
			err = c.snapshot(ctx, x)
		}
	}
	return err
}
