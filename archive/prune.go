package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Pruned is what a prune has done.
type Pruned struct {
	Packs  int    `json:"packs"`          // that were removed
	Bytes  uint64 `json:"bytes"`          // in them
	Ended  int    `json:"endedBackups"`   // dead ones
	Kept   uint64 `json:"keptBytes"`      // in packs that some snapshot or backup needs
	Unused uint64 `json:"unusedBytes"`    // of them: chunks that none needs
	Active int    `json:"runningBackups"` // whose packs were left alone
}

// Prune ends backups that have died and removes the packs that nothing needs. Backups may
// run meanwhile. The package comment says why that is safe.
func (a *Archive) Prune(ctx context.Context) (r Pruned, err error) {
	mine, err := a.lock(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, a.unlock(ctx, mine)) }()
	there := map[string]int64{} // first: a pack that comes later is not seen
	if err = a.store.List(ctx, packs, func(key string, size int64) error {
		there[strings.TrimPrefix(key, packs)] = size
		return nil
	}); err != nil {
		return r, err
	}
	m := &marks{a: a, active: map[string]bool{}, read: map[string]bool{}, used: map[string]uint64{}, seen: map[place]bool{}}
	for range 2 { // the second time for what has begun, or begun and ended, meanwhile
		err = m.leases(ctx)
		if err == nil {
			err = m.snapshots(ctx)
		}
		if err != nil {
			return r, err
		}
	}
	r.Ended, r.Active = len(m.dead), len(m.active)
	for _, key := range slices.Sorted(maps.Keys(there)) {
		writer, _, _ := strings.Cut(key, "/")
		size := uint64(there[key])
		if needed, has := m.used[key]; has || m.active[writer] {
			r.Kept += size
			if has {
				r.Unused += size - min(size, needed)
			}
			continue
		}
		if err := a.store.Delete(ctx, packs+key); err != nil {
			return r, err
		}
		r.Packs, r.Bytes = r.Packs+1, r.Bytes+size
	}
	for _, id := range m.dead {
		if err := a.store.Delete(ctx, writers+id); err != nil {
			return r, err
		}
	}
	return r, nil
}

// marks is what is needed.
type marks struct {
	a      *Archive
	active map[string]bool // ids of backups that run
	dead   []string        // of those that were ended
	read   map[string]bool // ids of snapshots
	used   map[string]uint64
	seen   map[place]bool // chunks, and pages
}

// leases tells the backups that run, whose bases must be there, and ends those that have
// died.
func (m *marks) leases(ctx context.Context) error {
	list, err := m.a.leases(ctx)
	if err != nil {
		return err
	}
	for _, l := range list {
		switch {
		case slices.Contains(m.dead, l.ID):
		case m.a.now().Sub(l.Renewed) < lifetime:
			m.active[l.ID] = true
			for _, base := range l.Bases {
				if _, err := m.a.index(ctx, base); err != nil {
					return fmt.Errorf("backup %s, which is running, needs snapshot %s: %w", l.ID, base, err)
				}
			}
		default:
			if _, err := m.a.end(ctx, l); err != nil {
				return err
			}
			m.dead = append(m.dead, l.ID)
		}
	}
	return nil
}

// snapshots marks what snapshots need that were not read yet.
func (m *marks) snapshots(ctx context.Context) error {
	return m.a.each(ctx, func(id string) bool { return !m.read[id] }, func(x *index) error {
		m.read[x.ID] = true
		if err := m.a.fillFrom(ctx, x, x.unseen(m.seen)); err != nil {
			return err
		}
		m.mark(&x.pages)
		m.mark(&x.contents)
		return nil
	})
}

// mark marks chunks as needed.
func (m *marks) mark(c *contents) {
	for i, l := range c.chunks {
		if p := c.place(uint32(i)); !m.seen[p] {
			m.seen[p] = true
			m.used[p.pack] += uint64(l.length) + frameHead
		}
	}
}

// frameHead is what is before a blob in a pack: its length and the name of its chunk.
const frameHead = 4 + 32

// sweepWriter removes what a backup that was given up has stored.
func (a *Archive) sweepWriter(ctx context.Context, id string) error {
	var keys []string
	err := a.store.List(ctx, packs+id+"/", func(key string, _ int64) error {
		keys = append(keys, key)
		return nil
	})
	for _, key := range append(keys, writers+id) {
		if err == nil {
			err = a.store.Delete(ctx, key)
		}
	}
	return err
}

// holder is who has the lock. It only keeps two prunes from doing the same work.
type holder struct {
	ID    string    `json:"id"`
	Host  string    `json:"host"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

// lock takes the lock; one that is older than a lease can live is taken over.
func (a *Archive) lock(ctx context.Context) (mine []byte, err error) {
	h := holder{ID: newID(), PID: os.Getpid(), Since: a.now().UTC()}
	h.Host, _ = os.Hostname()
	if mine, err = json.Marshal(h); err != nil {
		return nil, err
	}
	err = a.store.PutNew(ctx, lockKey, mine)
	if !errors.Is(err, fs.ErrExist) {
		return mine, err
	}
	p, err := a.store.Get(ctx, lockKey, 0, -1)
	var other holder
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("another prune has just ended; try again")
	case err != nil:
		return nil, err
	case json.Unmarshal(p, &other) != nil || a.now().Sub(other.Since) > lifetime:
		return mine, a.store.Put(ctx, lockKey, mine)
	}
	return nil, fmt.Errorf("process %d on %s prunes the archive since %s; if it has died, the lock is taken over after an hour", other.PID, other.Host, other.Since.Format(time.DateTime))
}

// unlock gives the lock up, if it was not taken over.
func (a *Archive) unlock(ctx context.Context, mine []byte) error {
	p, err := a.store.Get(ctx, lockKey, 0, -1)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(p) != string(mine) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.store.Delete(ctx, lockKey)
}
