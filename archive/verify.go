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

// Verify reads all snapshots, or those with the given ids or names, and all their chunks,
// each once. The error says that the store could not be read.
func (a *Archive) Verify(ctx context.Context, words []string, progress func(done, total uint64)) (v Verified, err error) {
	seen := map[place]bool{}
	check := func(x *index) error {
		v.Snapshots++
		for i, l := range x.chunks {
			p := place{x.packs[l.pack], l.offset}
			if seen[p] {
				continue
			}
			seen[p] = true
			if progress != nil {
				progress(uint64(i), uint64(len(x.chunks)))
			}
			if err := a.verifyChunk(ctx, x, uint32(i), &v); err != nil {
				return err
			}
		}
		return nil
	}
	if len(words) == 0 {
		return v, a.eachSound(ctx, &v, check)
	}
	for _, w := range words {
		x, err := a.find(ctx, w)
		if err == nil {
			err = check(x)
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

func (v *Verified) damage(err error) {
	if len(v.Damaged) < maxDamaged {
		v.Damaged = append(v.Damaged, err.Error())
	}
}

func (a *Archive) verifyChunk(ctx context.Context, x *index, n uint32, v *Verified) error {
	b, err := a.blob(ctx, x, n)
	v.Chunks, v.Bytes = v.Chunks+1, v.Bytes+uint64(len(b))
	if err == nil {
		_, err = a.openChunk(x, n, b)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		v.damage(fmt.Errorf("snapshot %s (%s): %w", x.Name, x.ID, err))
	}
	return nil
}

// eachSound passes over snapshots whose index is damaged, which counts.
func (a *Archive) eachSound(ctx context.Context, v *Verified, fn func(*index) error) error {
	ids, err := a.ids(ctx)
	for i := 0; i < len(ids) && err == nil; i++ {
		x, xerr := a.index(ctx, ids[i])
		switch {
		case isGone(xerr):
		case ctx.Err() != nil:
			err = ctx.Err()
		case xerr != nil:
			v.damage(xerr)
		default:
			err = fn(x)
		}
	}
	return err
}
