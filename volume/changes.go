package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"syscall"

	"udm/dm"
)

// BaseCheckpoint is the checkpoint of what an object was made from: the image or
// device that it stands on.
const BaseCheckpoint = "base"

// ChangesSpec asks what an object has changed since a checkpoint.
type ChangesSpec struct {
	Name string `json:"name"`
	// Since is a snapshot, or [BaseCheckpoint], or the number of an era of an era
	// device. "": since its base, or all that it holds where there is none.
	Since string `json:"since,omitempty"`
	// Sector is where to begin, and Of the Of of the answer that said so.
	Sector uint64 `json:"sector,omitempty"`
	Of     string `json:"of,omitempty"`
	// Sectors is how many are asked about, at most. 0: all.
	Sectors uint64 `json:"sectors,omitempty"`
}

// Changes is what an object has changed, or the first part of it.
type Changes struct {
	// Of tells what was compared. It stays the same while the names mean the same.
	Of      string   `json:"of"`
	Sectors uint64   `json:"sectors"` // size of the object
	Block   uint64   `json:"block"`   // sectors in which changes are told
	Extents []Change `json:"extents"` // ascending; what is between them is as it was
	Next    uint64   `json:"next"`    // where to go on
	// Own: the checkpoint was written to after it was taken, as far as these
	// changes tell.
	Own bool `json:"own,omitempty"`
}

// Change is a run of sectors that may differ from the checkpoint.
type Change struct {
	Sector  uint64 `json:"sector"`
	Sectors uint64 `json:"sectors"`
	Zero    bool   `json:"zero,omitempty"` // it reads as zeroes, and most likely takes no space
}

// mostChanges bounds an answer.
const mostChanges = 1 << 15

// Changes tells what an object has changed since a checkpoint, from a sector on: all
// that differs, in whole blocks, and what was written or discarded without making a
// difference. The two may be in use. A write that has ended is told of, one under way
// perhaps: see [thin.ChangesSince] and [snapshot.Exceptions].
func (m *Manager) Changes(ctx context.Context, s ChangesSpec) (Changes, error) {
	var c Changes
	err := m.beside(ctx, claim{shared: []string{s.Name, s.Since}}, func() error {
		h, err := m.history(s.Name, s.Since)
		if err == nil && s.Of != "" && s.Of != h.of {
			err = refuse(syscall.ESTALE, "%s or its checkpoint has been replaced; start from the beginning", s.Name)
		}
		if err == nil {
			c, err = h.list(ctx, s.Sector, s.Sectors)
		}
		return err
	})
	return c, err
}

// beside runs f while no operation changes the objects.
func (m *Manager) beside(ctx context.Context, c claim, f func() error) error {
	op := &operation{Kind: "a question", turn: true, m: m}
	if err := m.acquire(ctx, op, func() (claim, error) { return c, nil }); err != nil {
		return err
	}
	defer m.release(op)
	return f()
}

// history is what there is to know about how an object came to be what it is.
type history struct {
	o      *object
	of     string
	block  uint64
	common uint64 // size of what both have; what is behind it counts as changed
	// next tells of the range, which is not empty, or of its beginning.
	next func(sector, sectors uint64) (span, error)
}

// span is the changes up to a sector.
type span struct {
	changes []Change
	end     uint64
	own     bool
}

// history compares an object with a checkpoint: see [ChangesSpec].
func (m *Manager) history(name, since string) (*history, error) {
	o, err := m.object(name)
	if err == nil {
		err = m.whole(o)
	}
	if err != nil {
		return nil, err
	}
	if o.eraLine() != nil && o.real == "" && since != "" {
		return m.sinceEra(o, since)
	}
	var c *object
	if since != "" && (since != BaseCheckpoint || m.exists(since)) {
		if c, err = m.object(since); err != nil {
			return nil, err
		}
	}
	return m.compare(o, c, since == "")
}

// compare compares an object with another one, or with its base; without one with
// nothing, if that is allowed.
func (m *Manager) compare(o, c *object, nothing bool) (h *history, err error) {
	h = &history{o: o, common: o.sectors, of: identity(o, c)}
	if c != nil {
		h.common = min(c.sectors, o.sectors)
	}
	switch {
	case o.kind == Pool || o.kind == Merging:
		return nil, untold(o)
	case o.kind == Volume && (c != nil || nothing || o.volume().Origin != ""):
		return h, m.compareInPool(h, c)
	case c != nil:
		return h, m.compareStores(h, c)
	case m.sinceBase(h):
		return h, nil
	case nothing:
		h.holds()
		return h, nil
	}
	return nil, refuse(syscall.EINVAL, "%s has no base; name a snapshot of it", o.name)
}

func untold(o *object) error {
	return refuse(syscall.EINVAL, "%s is a %s, whose changes are not known", o.name, o.kind)
}

// identity is what two names mean, in short.
func identity(objects ...*object) string {
	sum := sha256.New()
	for _, o := range objects {
		if o != nil {
			fmt.Fprintf(sum, "%s\n%s\n", o.record.Operation, dm.FormatTable(o.table))
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// holds is all that an object holds.
func (h *history) holds() {
	h.block = 1
	h.next = func(sector, sectors uint64) (s span, err error) {
		s, err = h.behind(sector, sectors)
		s.changes = slices.DeleteFunc(s.changes, func(c Change) bool { return c.Zero })
		return s, err
	}
}

// behind is what the object has where the other one has nothing.
func (h *history) behind(sector, sectors uint64) (s span, err error) {
	s.end = sector
	list, err := h.o.dev.Extents(sector, sectors)
	for _, e := range list {
		s.changes = append(s.changes, Change{e.Sector, e.Sectors, !e.Data})
		s.end = e.Sector + e.Sectors
	}
	return s, err
}

// list is an answer that begins at a sector.
func (h *history) list(ctx context.Context, sector, sectors uint64) (Changes, error) {
	size := h.o.sectors
	last := size
	if sectors != 0 && sectors < size-min(size, sector) {
		last = sector + sectors
	}
	c := Changes{Of: h.of, Sectors: size, Block: h.block, Extents: []Change{}, Next: min(sector, size)}
	for c.Next < last && len(c.Extents) < mostChanges && ctx.Err() == nil {
		next, end := h.next, min(h.common, last)
		if c.Next >= h.common {
			next, end = h.behind, last
		}
		s, err := next(c.Next, end-c.Next)
		if err != nil {
			return c, err
		}
		for _, e := range s.changes {
			c.add(e)
		}
		c.Next, c.Own = s.end, c.Own || s.own
	}
	return c, ctx.Err()
}

// add adds a change behind the others.
func (c *Changes) add(e Change) {
	if n := len(c.Extents); n > 0 {
		if l := &c.Extents[n-1]; l.Zero == e.Zero && l.Sector+l.Sectors == e.Sector {
			l.Sectors += e.Sectors
			return
		}
	}
	c.Extents = append(c.Extents, e)
}
