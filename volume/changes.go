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

// BaseCheckpoint is the name of the checkpoint from which an object was created: the image or
// device on which it is based.
const BaseCheckpoint = "base"

// ChangesSpec is a query for an object's changes since a checkpoint.
type ChangesSpec struct {
	Name string `json:"name"`
	// Since is a snapshot, or [BaseCheckpoint], or the number of an era of an era device.
	// If it is "", the changes since the base are listed, or without a base the whole
	// contents.
	Since string `json:"since,omitempty"`
	// Sector is the first sector of interest. To continue, set it to Next of the previous
	// answer, and Of to that answer's Of.
	Sector uint64 `json:"sector,omitempty"`
	Of     string `json:"of,omitempty"`
	// Sectors bounds the range of interest. 0 means up to the end.
	Sectors uint64 `json:"sectors,omitempty"`
}

// Changes is a list of changes, or the first part of it.
type Changes struct {
	// Of identifies the compared objects. It changes if a name refers to another object.
	Of      string   `json:"of"`
	Sectors uint64   `json:"sectors"` // size of the object
	Block   uint64   `json:"block"`   // granularity in sectors
	Extents []Change `json:"extents"` // ascending; the ranges between them are unchanged
	Next    uint64   `json:"next"`    // the sector where to continue
	// Own is set if these changes show that the checkpoint was written to after it was
	// taken.
	Own bool `json:"own,omitempty"`
}

// Change is a range of sectors that may differ from the checkpoint.
type Change struct {
	Sector  uint64 `json:"sector"`
	Sectors uint64 `json:"sectors"`
	Zero    bool   `json:"zero,omitempty"` // reads as zeroes, and probably takes no space
}

// maxChanges bounds the length of an answer.
const maxChanges = 1 << 15

// Changes lists an object's changes since a checkpoint, from a sector on: all differences, in
// whole blocks, and blocks that were written or discarded without a difference. Both
// objects may be in use. Completed writes are included; concurrent ones may be: see
// [thin.ChangesSince] and [snapshot.Exceptions].
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

// beside runs f while no operation changes the claimed objects.
func (m *Manager) beside(ctx context.Context, c claim, f func() error) error {
	op := &operation{Kind: "a question", turn: true, m: m}
	if err := m.acquire(ctx, op, func() (claim, error) { return c, nil }); err != nil {
		return err
	}
	defer m.release(op)
	return f()
}

// history is a source of an object's changes.
type history struct {
	o      *object
	of     string // see Changes.Of
	block  uint64 // granularity in sectors
	common uint64 // sectors that both objects have; all after them counts as changed
	// next returns the changes of a nonempty range, or of its first part.
	next func(sector, sectors uint64) (span, error)
}

// span is a list of changes up to sector end.
type span struct {
	changes []Change
	end     uint64
	own     bool // see Changes.Own
}

// history returns the changes of an object since a checkpoint, see [ChangesSpec].
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

// compare compares o with c, or with its base if c is nil. If there is no base and nothing is
// set, the whole contents count as changed.
func (m *Manager) compare(o, c *object, nothing bool) (h *history, err error) {
	h = &history{o: o, common: o.sectors, of: identity(o, c)}
	if c != nil {
		h.common = min(c.sectors, o.sectors)
	}
	switch {
	case o.kind == Pool || o.kind == Merging:
		return nil, unknownChanges(o)
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

func unknownChanges(o *object) error {
	return refuse(syscall.EINVAL, "%s is a %s, whose changes are not known", o.name, o.kind)
}

// identity returns a short hash that identifies objects independently of their names.
func identity(objects ...*object) string {
	sum := sha256.New()
	for _, o := range objects {
		if o != nil {
			fmt.Fprintf(sum, "%s\n%s\n", o.record.Operation, dm.FormatTable(o.table))
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// holds makes the whole contents the changes.
func (h *history) holds() {
	h.block = 1
	h.next = func(sector, sectors uint64) (s span, err error) {
		s, err = h.extents(sector, sectors)
		s.changes = slices.DeleteFunc(s.changes, func(c Change) bool { return c.Zero })
		return s, err
	}
}

// extents returns the object's extents as changes, for the range beyond the end of the other
// object.
func (h *history) extents(sector, sectors uint64) (s span, err error) {
	s.end = sector
	list, err := h.o.dev.Extents(sector, sectors)
	for _, e := range list {
		s.changes = append(s.changes, Change{e.Sector, e.Sectors, !e.Data})
		s.end = e.Sector + e.Sectors
	}
	return s, err
}

// list returns the changes from a sector on.
func (h *history) list(ctx context.Context, sector, sectors uint64) (Changes, error) {
	size := h.o.sectors
	last := size
	if sectors != 0 && sectors < size-min(size, sector) {
		last = sector + sectors
	}
	c := Changes{Of: h.of, Sectors: size, Block: h.block, Extents: []Change{}, Next: min(sector, size)}
	for c.Next < last && len(c.Extents) < maxChanges && ctx.Err() == nil {
		next, end := h.next, min(h.common, last)
		if c.Next >= h.common {
			next, end = h.extents, last
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

// add appends a change and merges it with the previous one if they are adjacent.
func (c *Changes) add(e Change) {
	if n := len(c.Extents); n > 0 {
		if l := &c.Extents[n-1]; l.Zero == e.Zero && l.Sector+l.Sectors == e.Sector {
			l.Sectors += e.Sectors
			return
		}
	}
	c.Extents = append(c.Extents, e)
}
